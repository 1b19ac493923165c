"""Making a split from data of any accepted form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset, TensorDataset, default_collate

from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import DataError
from graphprog.train.data.batches import Parts, unpack
from graphprog.train.data.loaders import LoaderSplit
from graphprog.train.data.splits import IndexedSplit, Split, TensorSplit
from graphprog.train.objective import Objective


def open_split(task: ReprogrammedModel, objective: Objective, name: str, data: Any) -> Split:
    """Make a split from data of any accepted form.

    Args:
        task: the task that reads it.
        objective: checks inputs and labels.
        name: name of the split, for messages.
        data: a ``DataLoader``; tensors ``(input, ..., labels)``, or ``(inputs, labels)`` with
            a tuple or a dict of tensors as inputs; a ``TensorDataset``, ``Subset``, or any data
            set with a length whose items are ``(inputs, label)``.

    Raises:
        DataError: the data has another form, is empty, or is in memory and the task refuses it.
    """
    if isinstance(data, DataLoader):
        return LoaderSplit(task, objective, name, data)
    index: torch.Tensor | None = None
    while isinstance(data, Subset):
        inner = torch.as_tensor(list(data.indices), dtype=torch.int64)
        index = inner if index is None else inner[index]
        data = data.dataset
    if isinstance(data, TensorDataset):
        data = data.tensors
    if isinstance(data, tuple | list) and data and not isinstance(data[-1], tuple | list):
        return TensorSplit(objective, name, unpack(data, task, f"{name} data"), index)
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        raise DataError(
            f"{name} data must be tensors, a data set or a loader, not {type(data).__name__}",
            [
                "pass a tuple of tensors (inputs, labels)",
                "pass a torch.utils.data.DataLoader for a stream",
            ],
        )
    return IndexedSplit(objective, name, *_items(task, name, data, index))


def _items(
    task: ReprogrammedModel, name: str, data: Any, index: torch.Tensor | None
) -> tuple[int, Callable[[torch.Tensor], Parts]]:
    several = getattr(data, "__getitems__", None)

    def fetch(numbers: torch.Tensor) -> Parts:
        rows = (numbers if index is None else index[numbers]).tolist()
        items = several(rows) if callable(several) else [data[row] for row in rows]
        return unpack(default_collate(items), task, f"{name} data")

    return len(data) if index is None else len(index), fetch
