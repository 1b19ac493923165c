"""Finding the first interface at which another backend computes something else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch

from graphprog.backends.onnx_model.export_program import output_nodes
from graphprog.backends.parity.report import TOLERANCE, Inputs, ParityReport
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import BackendError
from graphprog.ir.ops import ancestors
from graphprog.utils.numerics import difference

Probe = Callable[[tuple[str, ...], Inputs], Sequence[np.ndarray]]
"""Evaluates graph nodes, by name, in another backend: their values on some inputs."""


def bisect(
    task: ReprogrammedModel, example: Inputs, probe: Probe, tolerance: float = TOLERANCE
) -> str | None:
    """Find where another backend first departs from the task.

    Halves the interfaces that a wrong output depends on: one that agrees clears all it depends
    on, one that differs leaves only those to suspect. This finds the first in the order of data
    flow, across branches too, in about log2 of their number of probes, as long as an error does
    not die out on its way to every interface after it.

    Args:
        task: the reference.
        example: inputs to run both on.
        probe: the other backend; asked for one node at a time, so that what it computes of the
            rest is as optimized as ever.
        tolerance: as in :func:`graphprog.backends.parity.report.compare`.

    Returns:
        Key of the first interface whose value differs while every interface it depends on
        agrees, or of the output; None if no output differs.
    """

    def differs(node: str) -> bool:
        (found,) = probe((node,), example)
        return not difference(_value(task, node, example), found).within(tolerance)

    keys = _interfaces(task)
    wrong = next((node for node in output_nodes(task) if differs(node)), None)
    if wrong is None:
        return None
    suspects = _before(task, wrong, keys)
    while suspects:
        middle = suspects[len(suspects) // 2]
        before = _before(task, middle, keys)
        if differs(middle):
            wrong, suspects = middle, [node for node in suspects if node in before]
        else:
            suspects = [node for node in suspects if node != middle and node not in before]
    return keys.get(wrong, f"output:{wrong}")


def require_parity(
    task: ReprogrammedModel, report: ParityReport, example: Inputs, probe: Probe
) -> ParityReport:
    """Return a report that passed.

    Raises:
        BackendError: it did not; has the report, with the first interface that diverges.
    """
    if report.passed:
        return report
    found = bisect(task, example, probe, report.tolerance)
    where = f"look at the operations before {found}" if found else "report this, with print(task)"
    raise BackendError(
        f"{report.backend} does not compute what the task does\n"
        f"{dataclasses.replace(report, first_divergence=found)}",
        [
            where,
            "a larger tolerance, if such differences are acceptable",
            "other inputs=(...), if random ones are nothing the source model can make sense of",
        ],
    )


def _interfaces(task: ReprogrammedModel) -> dict[str, str]:
    """A key for every node that an interface names: that of the module which made the value."""
    keys: dict[str, str] = {}
    for key, interface in task.graph.interfaces().items():
        made_here = key.endswith(":out") or key.startswith("output:")
        if interface.node not in keys or (made_here and not keys[interface.node].endswith(":out")):
            keys[interface.node] = key
    return keys


def _before(task: ReprogrammedModel, name: str, keys: dict[str, str]) -> list[str]:
    """Interfaces that a node depends on, in graph order; inputs, which cannot differ, left out."""
    found = ancestors(task.graph.nodes[name])[1:]
    return [n.name for n in sorted(found) if n.name in keys and n.op != "placeholder"]


def _value(task: ReprogrammedModel, node: str, example: Inputs) -> torch.Tensor:
    (value,) = task.graph.evaluate([task.graph.nodes[node]], example).values()
    return value
