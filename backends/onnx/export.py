"""ONNX export: one file for any ONNX runtime, with the program folded or overridable.

Folded: the program is constant, and everything that depends only on it is computed at export.
Overridable: every ``program.*`` tensor stays an initializer of that name which is also an input, so
that one session serves many programs.
Inputs: the tensors of a saved program are not in the file, but plain inputs of every call; for
runtimes that cannot override initializers, such as those of JavaScript and of inference servers.
Per row: the file takes a stack of programs, and every row of a batch selects its own; see
:mod:`graphprog.backends.onnx.per_row`.

Inputs and outputs keep their names; the batch axis is called ``batch``. The file's metadata carry
the contract, the labels, the program and the source's fingerprint, as one JSON document under
``graphprog`` and, for viewers, as plain entries ``graphprog.*``. Every node keeps the path of its
module in its name; those of the program's parts begin with ``program.``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnx_ir as ir

from graphprog.backends.onnx.per_row import export_per_row
from graphprog.backends.onnx.program_inputs import program_as_inputs
from graphprog.backends.onnx_model.export_program import exported_graph, output_names, output_nodes
from graphprog.backends.onnx_model.external_data import (
    checked_session,
    describe_model,
    save_proved,
    weights_beside,
)
from graphprog.backends.onnx_model.lower import lower_program
from graphprog.backends.onnx_model.range_check import check_range_inside
from graphprog.backends.onnxruntime.providers import open_session
from graphprog.backends.parity.bisect import require_parity
from graphprog.backends.parity.report import (
    Inputs,
    ParityReport,
    compare,
    example_batch,
    parity_batches,
)
from graphprog.compiler.compile import compile as compile_program
from graphprog.compiler.data_checks import warn_uncounted
from graphprog.compiler.freeze import freeze
from graphprog.compiler.merge_reparameterization import merge_reparameterization
from graphprog.compiler.model import ReprogrammedModel
from graphprog.compiler.outputs import with_outputs
from graphprog.compiler.program import Program
from graphprog.compiler.steering import Steer, with_steering
from graphprog.errors import BackendError
from graphprog.instruments.divergence import TOLERANCE
from graphprog.ir.graph import Graph
from graphprog.passes.attention.split_kv import SplitKV
from graphprog.passes.selection.push_down import push_down_selection
from graphprog.utils.files import require_path

Mode = Literal["folded", "overridable", "inputs", "per_row"]


def export(
    task: ReprogrammedModel | Graph,
    path: str | os.PathLike[str],
    *,
    program: Mode = "folded",
    outputs: Sequence[str] | None = None,
    steer: Steer | None = None,
    opset: int | None = None,
    tolerance: float = TOLERANCE,
    inputs: Inputs | None = None,
    check_range: bool = False,
    exact: bool = True,
) -> ParityReport:
    """Export a task as an ONNX file, after comparing it in ONNX Runtime with the task itself.

    Args:
        task: what to export, a compiled model or a graph without a program; it is not changed.
        path: the file, written atomically. Weights of 2 GiB and more lie beside it; see
            :mod:`graphprog.backends.onnx_model.external_data`.
        program: ``"folded"``, ``"overridable"``, ``"inputs"`` or ``"per_row"``; see the module's
            docstring.
        outputs: what the file returns: outputs of the model, and interfaces by key or alias, such
            as ``["logits", "hidden[5]"]``; they keep these names. None returns the model's outputs.
        steer: interfaces where the file adds ``strength * vector``, with ``strength`` a scalar
            input. Names such as ``["hidden[5]"]`` make each vector an input, ``vector_hidden_5``
            [batch, d], one for each row; a mapping from names to vectors [d] makes them constants.
            ``inputs`` then have these as well.
        opset: version of the operator set, 18 or above; None takes the exporter's default.
        tolerance: as in :func:`graphprog.backends.parity.report.compare`.
        inputs: examples to compare on, the first alone and all; None takes 1 and 5 random rows.
        check_range: whether the file returns NaN for rows whose first input is outside of the
            contract's range, for runtimes other than graphprog's session, which refuses them.
        exact: export the operations of the task. Otherwise, what :func:`graphprog.freeze` folds at
            the price of rounding is folded, too; only for ``program="folded"``.

    Raises:
        BackendError: no translation; the results differ, and where first; or there is no range to
            check.
        DataError: ``inputs`` are not what the task takes.
        InterfaceError: an output is not an interface of the model.
        FileError: the place cannot be written. As with every error, an old file stays.

    Example:
        >>> report = gp.backends.onnx.export(task, "frame.onnx")  # runs both and compares
        >>> session = gp.backends.onnxruntime.Session("frame.onnx")
        >>> assert session.run(images).shape == (4, 2)
    """
    if program not in get_args(Mode):
        raise BackendError(f"program={program!r} is unknown; one of {', '.join(get_args(Mode))}")
    require_path(path)
    if not exact and program != "folded":
        raise BackendError(
            f'exact=False folds the program in, which program="{program}" keeps apart',
            ['program="folded"'],
        )
    if isinstance(task, Graph):
        task = compile_program(task, Program())
    warn_uncounted(task.spec.align.kind, task.alignment)
    task = merge_reparameterization(task)
    if steer is not None:
        if program == "per_row":
            raise BackendError(
                'steer= and program="per_row" exclude one another',
                ['program="folded": every row has a vector of its own'],
            )
        task = with_steering(task, steer)
    if outputs is not None:
        task = with_outputs(task, outputs)
    batches, example = parity_batches(task, inputs), example_batch(task, inputs)
    if program == "per_row":
        return export_per_row(task, path, batches, example, opset, tolerance, check_range)
    kept: Mode = "folded" if program == "folded" else "overridable"
    model = lower(task, example, kept, opset, graph=None if exact else freeze(task, exact=False))
    own = program_as_inputs(model, task.program_state()) if program == "inputs" else None
    if check_range:
        check_range_inside(model, task.spec.contract.range)
    describe_model(model, task, program, checked=check_range)

    def probe(nodes: tuple[str, ...], given: Inputs) -> list[np.ndarray]:
        return run_model(lower(task, example, kept, opset, nodes), given)

    def prove(temporary: Path) -> ParityReport:
        session = checked_session(temporary, task.graph)

        def run(given: Inputs) -> list[np.ndarray]:
            return session.evaluate(given, own)

        report = compare(task, run, batches, f"onnx ({program})", tolerance)
        return require_parity(task, report, example, probe)

    return save_proved(model, path, prove)


def lower(
    task: ReprogrammedModel,
    example: Inputs,
    program: Mode,
    opset: int | None = None,
    nodes: tuple[str, ...] | None = None,
    graph: Graph | None = None,
) -> ir.Model:
    """Make the ONNX model of a task, without metadata.

    Args:
        task: what to lower.
        example: inputs of two rows to trace with.
        program: as in :func:`export`.
        opset: as in :func:`export`.
        nodes: names of graph nodes to return in place of the task's outputs.
        graph: what to lower instead of the task's graph; it returns the same.
    """
    names = output_names(task) if nodes is None else nodes
    graph = SplitKV()(task.graph if graph is None else graph)
    traced = exported_graph(graph, example, nodes or output_nodes(graph), task.device)
    push_down_selection(traced.graph_module)
    return lower_program(traced, task.inputs, names, opset, overridable=program == "overridable")


def run_model(model: ir.Model, inputs: Inputs) -> list[np.ndarray]:
    """Run an ONNX model on the CPU, with inputs and outputs in order."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        with weights_beside(model, path) as ready:
            ir.save(ready, path)
        session = open_session(path, "cpu")
    names = [entry.name for entry in session.get_inputs()]
    values = [value.detach().cpu().numpy() for value in inputs]
    results: list[np.ndarray] = session.run(None, dict(zip(names, values, strict=True)))
    return results
