"""Batches: the checked data of one step, and the share of it that this process computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import DataError
from graphprog.train.data.convert import tensors_of
from graphprog.train.objective import Objective

Parts = tuple[tuple[torch.Tensor, ...], Any]
"""The inputs of a task in order, each [B, ...], and the labels: a tensor [B, ...], or several."""

_FORMS = [
    "pass (inputs, labels): inputs are a tensor, a tuple of tensors, or a dict by name",
    "pass a dict of the inputs and the labels",
]
_LABELS = ("labels", "label")


def leaves_of(labels: Any) -> list[torch.Tensor]:
    """Return the tensors of labels, in order."""
    found: list[torch.Tensor] = pytree.tree_leaves(labels)
    return found


def rows_of(labels: Any) -> int:
    """Return the number of examples that have labels."""
    return len(leaves_of(labels)[0])


def select(labels: Any, rows: torch.Tensor | slice) -> Any:
    """Return labels of some rows."""
    if isinstance(rows, slice):
        return pytree.tree_map(lambda part: part[rows], labels)
    return pytree.tree_map(lambda part: part.index_select(0, rows.to(part.device)), labels)


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
        labels: what the objective takes: a tensor [B, ...], or a tuple or dict of such.
        own: number of rows that count; 0 if a small batch has none for this process, which then
            holds the row of another, so that all processes take the same steps.
        total: number of rows of the batch over all processes.
        kept: whether the inputs are values that were kept of samples, instead of samples.
    """

    inputs: tuple[torch.Tensor, ...]
    labels: Any
    own: int
    total: int
    kept: bool = False

    def to(self, device: torch.device) -> Batch:
        """Move the batch to a device."""
        if all(part.device == device for part in (*self.inputs, *leaves_of(self.labels))):
            return self
        inputs, labels = pytree.tree_map(
            lambda part: part.to(device, non_blocking=True), (self.inputs, self.labels)
        )
        return replace(self, inputs=inputs, labels=labels)


def unpack(item: Any, task: ReprogrammedModel, place: str) -> Parts:
    """Return inputs and labels of an item that a data set or loader yields.

    Args:
        item: ``(inputs, labels)`` or ``(input, ..., labels)``, or a mapping: its values that are
            named like inputs of the task are these, the others the labels.
        task: gives the order of the inputs of a dict.
        place: name of the item, for messages.

    Raises:
        DataError: anything else.
    """
    if isinstance(item, Mapping):
        inputs, labels = _from_mapping(item, task, place)
    elif isinstance(item, Sequence) and not isinstance(item, str) and len(item) > 1:
        *inputs, labels = item
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            inputs = _by_name(inputs[0], task, place)
        elif len(inputs) == 1 and isinstance(inputs[0], tuple | list):
            inputs = list(inputs[0])
    else:
        raise DataError(
            f"{place}: a {type(item).__name__} is not a pair of inputs and labels", _FORMS
        )
    inputs, labels = tensors_of((tuple(inputs), labels), task, place)
    return inputs, _whole(labels)


def _whole(labels: Any) -> Any:
    """Return labels, integers as int64, as losses take them."""
    kinds = (torch.uint8, torch.int8, torch.int16, torch.int32)
    return pytree.tree_map(lambda part: part.long() if part.dtype in kinds else part, labels)


def _from_mapping(
    item: Mapping[str, Any], task: ReprogrammedModel, place: str
) -> tuple[list[Any], Any]:
    """Return the inputs that a mapping names, in order, and its other values, the labels."""
    names = [spec.name for spec in task.inputs]
    others = {name: value for name, value in item.items() if name not in names}
    missing = [name for name in names if name not in item]
    if missing or not others:
        what = f"input {missing[0]!r}" if missing else "labels"
        raise DataError(
            f"{place}: {', '.join(map(str, item)) or 'an empty dict'} without {what}: the graph "
            f"takes {', '.join(names)}, and everything else is labels",
            ["name the values of the dict like the inputs of the graph, and add labels", _FORMS[0]],
        )
    named = next((name for name in _LABELS if name in others), None)
    if named is None and len(others) == 1:
        (named,) = others
    return [item[name] for name in names], others if named is None else others[named]


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
    rows = rows_of(labels)
    if any(part.ndim == 0 or len(part) != rows for part in (*inputs, *leaves_of(labels))):
        return None
    for row in range(rows):
        one = slice(row, row + 1)
        try:
            objective.check(tuple(part[one] for part in inputs), select(labels, one))
        except DataError:
            return row
    return None
