"""Finding the first interface at which another backend computes something else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from graphprog.backends.onnx_model.export_program import output_nodes
from graphprog.backends.parity.report import Inputs, ParityReport
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import BackendError
from graphprog.instruments.compare import compare_values
from graphprog.instruments.divergence import TOLERANCE, first_that_differs, keys_of_nodes

Probe = Callable[[tuple[str, ...], Inputs], Sequence[np.ndarray]]
"""Evaluates graph nodes, by name, in another backend: their values on some inputs."""


def bisect(
    task: ReprogrammedModel, example: Inputs, probe: Probe, tolerance: float = TOLERANCE
) -> str | None:
    """Find where another backend first departs from the task.

    See :func:`graphprog.instruments.divergence.first_that_differs`.

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
    graph = task.graph

    def differs(node: str) -> bool:
        (found,) = probe((node,), example)
        (value,) = graph.evaluate([graph.nodes[node]], example).values()
        return not compare_values(node, value, found).within(tolerance)

    keys = keys_of_nodes(graph)
    wrong = first_that_differs(graph, differs, output_nodes(task), keys)
    return None if wrong is None else keys.get(wrong, f"output:{wrong}")


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
