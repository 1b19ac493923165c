"""Proof that rows with their own programs are computed as each alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional

from graphprog.backends.onnx_model.program_files import LoadedProgram
from graphprog.backends.parity.report import Inputs, ParityReport, compare
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import BackendError
from graphprog.ir.inputs import row_inputs, rows_of


def prove_rows(
    tasks: Sequence[ReprogrammedModel],
    evaluate: Callable[[Inputs, Sequence[LoadedProgram]], list[np.ndarray]],
    batches: Sequence[Inputs],
    tolerance: float,
) -> ParityReport:
    """Compare batches of mixed programs with the tasks themselves, row by row.

    Args:
        tasks: of the same source and spec, save for the number of classes.
        evaluate: outputs for inputs and one program per row.
        batches: inputs.
        tolerance: as in :func:`graphprog.backends.parity.report.compare`.

    Raises:
        BackendError: they differ; with the report.
    """
    loaded = [
        LoadedProgram({name: tensor.numpy() for name, tensor in task.program_state().items()})
        for task in tasks
    ]

    def programs(inputs: Inputs) -> list[int]:
        rows = rows_of(tasks[0].inputs, inputs)
        return [(row + 1) % len(loaded) for row in range(rows)]

    report = compare(
        tasks[0],
        lambda inputs: evaluate(inputs, [loaded[number] for number in programs(inputs)]),
        batches,
        "onnx (per_row)",
        tolerance,
        lambda inputs: row_by_row(tasks, programs(inputs), inputs),
    )
    if not report.passed:
        raise BackendError(
            f"rows with their own programs are not computed as each alone\n{report}",
            ['export(..., program="overridable"), which serves one program per run'],
        )
    return report


def perturbed(task: ReprogrammedModel) -> ReprogrammedModel:
    """A task of the same spec with other numbers."""
    other = copy.deepcopy(task)
    generator = torch.Generator().manual_seed(0)
    state = {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator).to(tensor)
        if tensor.is_floating_point()
        else (tensor.roll(1, 0) if tensor.ndim else tensor)
        for name, tensor in task.program_state().items()
    }
    other.load_program_state(state)
    return other


def row_by_row(
    tasks: Sequence[ReprogrammedModel], programs: Sequence[int], inputs: Inputs
) -> list[torch.Tensor]:
    """Outputs of tasks for one row after the other, each alone, as those of one batch.

    Args:
        tasks: of the same source and spec, save for the number of classes.
        programs: number of the task of each row.
        inputs: of all rows; those without an axis of rows are the same for all.
    """
    by_row = row_inputs(tasks[0].inputs)
    device = tasks[0].device
    found: list[list[torch.Tensor]] = []
    for row, number in enumerate(programs):
        one = [
            value[row : row + 1] if varies else value
            for varies, value in zip(by_row, inputs, strict=True)
        ]
        with torch.no_grad():
            outputs = tasks[number].graph.run([value.to(device) for value in one])
        found.append([value for value in outputs if isinstance(value, torch.Tensor)])
    return [_stacked(values) for values in zip(*found, strict=True)]


def _stacked(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    widest = max(row.shape[-1] for row in rows)
    return torch.cat(
        [functional.pad(row, (0, widest - row.shape[-1]), value=float("-inf")) for row in rows]
    )
