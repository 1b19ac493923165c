"""Batches: the checked data of one step, and the share of it that this process computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import DataError
from graphprog.train.objective import Objective

Parts = tuple[tuple[torch.Tensor, ...], torch.Tensor]
"""The inputs of a task in order, each [B, ...], and the labels, int64 [B, ...]."""

_FORMS = ["pass (inputs, labels): inputs are a tensor, a tuple of tensors, or a dict by name"]


@dataclass(frozen=True)
class Share:
    """The index of this process among several, which determines its share of a batch."""

    index: int = 0
    count: int = 1

    def of(self, rows: torch.Tensor) -> torch.Tensor:
        """Return this process's rows of a batch; possibly none."""
        return rows if self.count == 1 else rows[self.index :: self.count]


@dataclass(frozen=True)
class Batch:
    """One process's part of a batch.

    Attributes:
        inputs: inputs of the task, in order, each [B, ...].
        labels: int64 [B], or [B, ...] where the objective takes more.
        own: number of rows that count; 0 if a small batch has none for this process, which then
            holds the row of another, so that all processes take the same steps.
        total: number of rows of the batch over all processes.
    """

    inputs: tuple[torch.Tensor, ...]
    labels: torch.Tensor
    own: int
    total: int

    def to(self, device: torch.device) -> Batch:
        """Move the batch to a device."""
        if self.labels.device == device and all(part.device == device for part in self.inputs):
            return self
        inputs = tuple(part.to(device, non_blocking=True) for part in self.inputs)
        return Batch(inputs, self.labels.to(device, non_blocking=True), self.own, self.total)


def unpack(item: Any, task: ReprogrammedModel, place: str) -> Parts:
    """Return inputs and labels of an item that a data set or loader yields.

    Args:
        item: ``(inputs, labels)`` or ``(input, ..., labels)``.
        task: gives the order of the inputs of a dict.
        place: name of the item, for messages.

    Raises:
        DataError: anything else.
    """
    if not isinstance(item, Sequence) or isinstance(item, str) or len(item) < 2:
        raise DataError(
            f"{place}: a {type(item).__name__} is not a pair of inputs and labels", _FORMS
        )
    *inputs, labels = item
    if len(inputs) == 1 and isinstance(inputs[0], Mapping):
        inputs = _by_name(inputs[0], task, place)
    elif len(inputs) == 1 and isinstance(inputs[0], tuple | list):
        inputs = list(inputs[0])
    for part in (*inputs, labels):
        if not isinstance(part, torch.Tensor):
            raise DataError(
                f"{place}: a {type(part).__name__} where a tensor is needed",
                ["torch.as_tensor converts arrays and numbers", *_FORMS],
            )
    return tuple(inputs), labels


def _by_name(given: Mapping[str, Any], task: ReprogrammedModel, place: str) -> list[Any]:
    names = [spec.name for spec in task.inputs]
    if set(given) != set(names):
        raise DataError(
            f"{place}: inputs are named {', '.join(map(str, given))}, "
            f"but the graph takes {', '.join(names)}"
        )
    return [given[name] for name in names]


def check_parts(objective: Objective, parts: Parts, where: Callable[[int | None], str]) -> None:
    """Check a batch, and report where in the data set an error is.

    Args:
        objective: the objective whose check is run.
        parts: inputs and labels.
        where: returns the place of a row, or of the whole batch.

    Raises:
        DataError: as raised by the check of the objective.
    """
    try:
        objective.check(*parts)
    except DataError as error:
        row = _faulty_row(objective, parts)
        raise DataError(f"{where(row)}: {error.what}", error.remedies) from error


def _faulty_row(objective: Objective, parts: Parts) -> int | None:
    """Return the first row that fails alone; None if every row passes and only the batch fails."""
    inputs, labels = parts
    if any(part.ndim == 0 or len(part) != len(labels) for part in inputs):
        return None
    for row in range(len(labels)):
        one = slice(row, row + 1)
        try:
            objective.check(tuple(part[one] for part in inputs), labels[one])
        except DataError:
            return row
    return None
