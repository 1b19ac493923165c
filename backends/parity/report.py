"""What every backend promises, and the comparison that proves it kept the promise."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import BackendError
from graphprog.instruments.compare import Compared, compare_values
from graphprog.instruments.divergence import TOLERANCE
from graphprog.ir.inputs import InputSpec, batch_axis, rows_of
from graphprog.utils.html import preformatted

Inputs = tuple[torch.Tensor, ...]
Runner = Callable[[Inputs], Sequence[np.ndarray]]
"""Runs the lowered task: its tensor inputs in order to the values of its outputs in order."""


@runtime_checkable
class Backend(Protocol):
    """Something that lowers a task to a file.

    ``export`` leaves the task as it is: tensors, graph, flags. It runs what it wrote and compares
    it with the task at two batch sizes (see :func:`compare`); where that fails it raises
    BackendError with the report and the first interface that diverges, and no file is left, or
    the old one.
    """

    def export(
        self, task: ReprogrammedModel, path: str | os.PathLike[str], *, tolerance: float = TOLERANCE
    ) -> ParityReport:
        """Write the file and report how it compares."""


def checked_backend(name: str, loaded: Any) -> Backend:
    """A backend of another package, once it is known to be one.

    Raises:
        BackendError: it has no ``export``.
    """
    if not isinstance(loaded, Backend):
        raise BackendError(
            f"the entry point {name!r} gives {loaded!r}, which has no export function",
            ["update or remove the package that declares it"],
        )
    return loaded


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """How a lowered task compares with the task itself; prints as a table.

    Attributes:
        backend: what ran the lowered task.
        rows: how many examples were compared, over all batches.
        batch_sizes: of the batches compared.
        max_absolute: largest difference of two output values.
        max_relative: largest difference, as a share of the largest magnitude of that output in
            that batch.
        label_agreement: share of rows whose largest value is at the same place of the first
            output's last axis; None where that output has fewer than two axes.
        tolerance: the requested tolerance.
        passed: whether, in every output of every batch, the difference is within the tolerance,
            absolute or relative.
        first_divergence: where it did not pass, key of the first interface that differs, if it
            was looked for and found.
        outputs: how each output of each batch differs, as :func:`graphprog.compare` has it.
    """

    backend: str
    rows: int
    batch_sizes: tuple[int, ...]
    max_absolute: float
    max_relative: float
    label_agreement: float | None
    tolerance: float
    passed: bool
    first_divergence: str | None = None
    outputs: tuple[Compared, ...] = dataclasses.field(default=(), repr=False)

    def _repr_html_(self) -> str:
        """Return the text, for notebooks."""
        return preformatted(str(self))

    def __str__(self) -> str:
        sizes = " and ".join(map(str, self.batch_sizes))
        lines = {
            f"parity of {self.backend}": "passed" if self.passed else "FAILED",
            "rows compared": f"{self.rows}, in batches of {sizes}",
            "largest difference": f"{self.max_absolute:.3g}, relative {self.max_relative:.3g}",
            "tolerance": f"{self.tolerance:g}",
        }
        if self.label_agreement is not None:
            lines["same label"] = f"{self.label_agreement:.2%}"
        if self.first_divergence is not None:
            lines["first divergence"] = self.first_divergence
        width = max(map(len, lines))
        return "\n".join(f"{name.ljust(width)}  {text}" for name, text in lines.items())


def parity_batches(
    task: ReprogrammedModel, inputs: Inputs | None = None, smallest: int = 1
) -> list[Inputs]:
    """Batches of two sizes to compare on: the smallest, and 5 random rows or all given ones.

    A graph whose batch is fixed has only its own size.

    Raises:
        DataError: the task does not take the given inputs.
    """
    if inputs is None:
        sizes = (smallest, 5) if batch_axis(task.inputs) is not None else (1,)
        return [task.input_example(size, seed=size) for size in sizes]
    task.check(inputs)
    rows = rows_of(task.inputs, inputs)
    return [inputs] if rows <= smallest else [_take_rows(task, inputs, smallest), inputs]


def example_batch(task: ReprogrammedModel, inputs: Inputs | None = None) -> Inputs:
    """Inputs of two rows to trace with: the first of the given ones, or random ones."""
    return task.input_example(2) if inputs is None else _take_rows(task, inputs, 2)


def _take_rows(task: ReprogrammedModel, inputs: Inputs, rows: int) -> Inputs:
    batch = rows_of(task.inputs, inputs) if batch_axis(task.inputs) is not None else 0
    return tuple(
        torch.cat([value, value])[:rows] if batch and _is_batch(spec, value, batch) else value
        for spec, value in zip(task.inputs, inputs, strict=True)
    )


def _is_batch(spec: InputSpec, value: torch.Tensor, rows: int) -> bool:
    """Whether an input has a row an example; its letter is another where nothing joins inputs."""
    first = spec.shape[0] if spec.shape else 0
    return isinstance(first, str) and first.isalpha() and len(value) == rows


def compare(
    task: ReprogrammedModel,
    run: Runner,
    batches: Sequence[Inputs],
    backend: str,
    tolerance: float = TOLERANCE,
    reference: Callable[[Inputs], list[torch.Tensor]] | None = None,
) -> ParityReport:
    """Run a lowered task and the task itself on the same batches.

    Args:
        task: the reference; it is run without gradients.
        run: the lowered task.
        batches: inputs of the task; see :func:`parity_batches`.
        backend: name for the report.
        tolerance: see :data:`TOLERANCE`.
        reference: what to compare with in place of the task.
    """
    outputs: list[Compared] = []
    agreements, sizes = [], []
    for inputs in batches:
        expected = reference_outputs(task, inputs) if reference is None else reference(inputs)
        found = list(run(inputs))
        if len(found) != len(expected):
            raise BackendError(f"{backend} returned {len(found)} outputs, not {len(expected)}")
        names = (f"output {number}" for number in range(len(expected)))
        outputs += map(compare_values, names, expected, found)
        sizes.append(rows_of(task.inputs, inputs))
        if expected[0].ndim >= 2:
            labels = expected[0].cpu().numpy().argmax(-1), np.asarray(found[0]).argmax(-1)
            agreements.append((labels[0] == labels[1]).reshape(-1))
    return ParityReport(
        backend=backend,
        rows=sum(sizes),
        batch_sizes=tuple(sizes),
        max_absolute=max(output.absolute for output in outputs),
        max_relative=max(output.relative for output in outputs),
        label_agreement=float(np.concatenate(agreements).mean()) if agreements else None,
        tolerance=tolerance,
        passed=all(output.within(tolerance) for output in outputs),
        outputs=tuple(outputs),
    )


def reference_outputs(task: ReprogrammedModel, inputs: Inputs) -> list[torch.Tensor]:
    """The tensors the task returns, in order, on the device its weights are on."""
    with torch.no_grad():
        outputs = task.graph.run([value.to(task.device) for value in inputs])
    return [value for value in outputs if isinstance(value, torch.Tensor)]
