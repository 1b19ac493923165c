"""Making a split from data of any accepted form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import DataError, GraphprogError
from graphprog.train.data.batches import Parts, unpack
from graphprog.train.data.convert import stack, unreadable
from graphprog.train.data.loaders import LoaderSplit
from graphprog.train.data.splits import IndexedSplit, Split, TensorSplit
from graphprog.train.objective import Objective


def open_split(task: ReprogrammedModel, objective: Objective, name: str, data: Any) -> Split:
    """Make a split from data of any accepted form.

    Args:
        task: the task that reads it.
        objective: checks inputs and labels.
        name: name of the split, for messages.
        data: a ``DataLoader``; tensors or arrays ``(input, ..., labels)``, ``(inputs, labels)``
            with a tuple or a dict as inputs, or a dict with the labels in it; a
            ``TensorDataset``, ``Subset``, or any data set with a length whose items are
            ``(inputs, label)`` or dicts.

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
    if isinstance(data, Mapping) or _is_whole(data):
        return TensorSplit(objective, name, unpack(data, task, f"{name} data"), index)
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        raise DataError(
            f"{name} data must be tensors, a data set or a loader, not {type(data).__name__}",
            [
                "pass a tuple (inputs, labels) of tensors or NumPy arrays",
                "pass a torch.utils.data.DataLoader for a stream",
            ],
        )
    return IndexedSplit(objective, name, *_items(task, name, data, index))


def _is_whole(data: Any) -> bool:
    """Whether data are tensors of all examples, and not a list of examples."""
    if not isinstance(data, tuple | list) or not data:
        return False
    if isinstance(data, list) and isinstance(data[-1], Mapping):
        return False
    whole = isinstance(data[0], torch.Tensor | numpy.ndarray | Mapping)
    return whole or not isinstance(data[-1], tuple | list)


def _items(
    task: ReprogrammedModel, name: str, data: Any, index: torch.Tensor | None
) -> tuple[int, Callable[[torch.Tensor], Parts]]:
    def fetch(numbers: torch.Tensor) -> Parts:
        rows = (numbers if index is None else index[numbers]).tolist()
        items = _read(data, rows, [f"{name} example {number}" for number in numbers.tolist()])
        examples = dict(zip(numbers.tolist(), items, strict=True))
        return unpack(stack(examples, task, name), task, f"{name} data")

    return len(data) if index is None else len(index), fetch


def _read(data: Any, rows: list[int], places: list[str]) -> list[Any]:
    """Return items of a data set.

    Raises:
        DataError: the data set fails; the message has the place of the first item that does.
    """
    several = getattr(data, "__getitems__", None)
    try:
        return list(several(rows)) if callable(several) else [data[row] for row in rows]
    except GraphprogError:
        raise
    except Exception as error:
        for row, place in zip(rows, places, strict=True):
            try:
                data[row]
            except Exception as own:
                raise unreadable(place, "the data set", own) from own
        raise unreadable(f"{places[0]} and those after it", "the data set", error) from error
