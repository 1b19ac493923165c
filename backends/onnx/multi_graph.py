"""A folder of ONNX files for one source: one graph per kind of program, and shared weights.

The changes of a program, such as a prompt of another length, are compiled into the graph of its
slot, so other slots cost it nothing. The graphs are small; their weights are in one external data
file.
"""

from __future__ import annotations

import functools
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from graphprog.backends.onnx.per_row import lower_per_row
from graphprog.backends.onnx_model.external_data import beside, checked_session, describe_model
from graphprog.backends.parity.report import Inputs, ParityReport, example_batch, parity_batches
from graphprog.backends.parity.rows import prove_rows
from graphprog.compiler.compile import compile
from graphprog.compiler.merge_reparameterization import merge_reparameterization
from graphprog.compiler.program import Program
from graphprog.errors import BackendError, FileError
from graphprog.instruments.divergence import TOLERANCE
from graphprog.ir.graph import Graph
from graphprog.utils.files import atomic_write

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def export_multi_graph(
    graph: Graph,
    folder: str | os.PathLike[str],
    slots: Mapping[str, Program],
    *,
    opset: int | None = None,
    tolerance: float = TOLERANCE,
    inputs: Mapping[str, Inputs] | None = None,
) -> dict[str, ParityReport]:
    """Write a source model that serves several kinds of programs, one program per row.

    Args:
        graph: the source.
        folder: created if it does not exist. Each slot becomes a file of its name in it, as by
            ``onnx.export(..., program="per_row")``.
        slots: a program of each kind, by the name of the slot. Only the spec counts; if an
            alignment has a number of classes, programs of the slot may have another.
        opset: as in :func:`graphprog.backends.onnx.export`.
        tolerance: likewise.
        inputs: likewise, by the name of the slot.

    Returns:
        A comparison of each slot with PyTorch.

    Raises:
        BackendError: there are no slots, a name is not a file name, or as in ``onnx.export``.
            Existing files do not change.
        FileError: the place cannot be written.

    Example:
        >>> slots = {"frames": gp.Program([gp.Additive()], align=gp.FixedMap(classes=2))}
        >>> reports = gp.backends.onnx.export_multi_graph(graph, "served", slots)
        >>> server = gp.backends.onnxruntime.MultiSession("served")
    """
    given = dict(inputs or {})
    _check_names(slots, given)
    models, batches = {}, {}
    for name, program in slots.items():
        task = merge_reparameterization(compile(graph, program))
        batches[name] = parity_batches(task, given.get(name))
        models[name] = lower_per_row(task, example_batch(task, given.get(name)), opset)
        describe_model(models[name].model, task, "per_row", models[name].axes)
    target = Path(folder)
    reports = {}
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=target) as temporary:
            trial = Path(temporary)
            with beside([one.model for one in models.values()], trial, "source") as data:
                for name, one in models.items():
                    path = trial / f"{name}.onnx"
                    atomic_write(path, functools.partial(ir.save, one.model))
                    run = checked_session(path, one.tasks[0].graph).evaluate
                    reports[name] = prove_rows(one.tasks, run, batches[name], tolerance)
                os.replace(data, target / data.name)
                for name in models:
                    os.replace(trial / f"{name}.onnx", target / f"{name}.onnx")
    except OSError as error:
        raise FileError(f"{target}: cannot be written: {error}", ["check the folder"]) from error
    return reports


def _check_names(slots: Mapping[str, Program], given: Mapping[str, Inputs]) -> None:
    """Check the names of slots and inputs."""
    if not slots:
        raise BackendError("there are no slots", ['slots={"pixels": gp.Program(...), ...}'])
    for name in slots:
        if not _NAME.fullmatch(name):
            raise BackendError(
                f"slot {name!r} cannot be the name of a file", ["use letters, digits, '-' and '_'"]
            )
    if unknown := sorted(given.keys() - slots.keys()):
        raise BackendError(f"inputs for {', '.join(unknown)}, which are no slots")
