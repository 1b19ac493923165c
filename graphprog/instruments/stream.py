"""Batches of any data, in order, with a progress bar."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader, default_collate

from graphprog.errors import DataError

Item = TypeVar("Item")


def batches_of(
    data: Any, inputs: int, batch_size: int
) -> tuple[Iterator[tuple[Any, torch.Tensor | None, int]], int | None]:
    """Return batches of inputs, labels and number of rows; and how many there are, if known.

    Args:
        data: tensors in order or by name, a data set with a length, or a ``DataLoader``.
        inputs: number of inputs of the model; one element more is labels.
        batch_size: rows of a batch, where the data are not a loader.

    Raises:
        DataError: the data have another form, or are empty.
    """
    if batch_size < 1:
        raise DataError(f"batch_size must be 1 or more, not {batch_size}")
    if isinstance(data, DataLoader):
        sized = hasattr(data, "__len__") and hasattr(data.dataset, "__len__")
        return _parted(data, inputs), len(data) if sized else None
    tensors = [*data.values()] if isinstance(data, Mapping) else data
    if isinstance(tensors, torch.Tensor):
        tensors = [tensors]
    if isinstance(tensors, list | tuple) and all(isinstance(t, torch.Tensor) for t in tensors):
        rows = {len(tensor) for tensor in tensors if tensor.ndim}
        if len(rows) != 1 or rows == {0}:
            raise DataError(f"data have {sorted(rows)} rows; all tensors need the same number")
        names = [*data] if isinstance(data, Mapping) else None
        return _sliced(tensors, names, inputs, batch_size), -(-rows.pop() // batch_size)
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__") or not len(data):
        raise DataError(
            f"data must be tensors, a data set that is not empty, or a loader, "
            f"not {type(data).__name__}"
        )
    count = len(data)
    collated = (
        default_collate([data[row] for row in range(start, min(start + batch_size, count))])
        for start in range(0, count, batch_size)
    )
    return _parted(collated, inputs), -(-count // batch_size)


def _sliced(
    tensors: Sequence[torch.Tensor], names: list[str] | None, inputs: int, batch_size: int
) -> Iterator[tuple[Any, torch.Tensor | None, int]]:
    for start in range(0, len(tensors[0]), batch_size):
        rows = [tensor[start : start + batch_size] for tensor in tensors]
        item: Any = rows if names is None else dict(zip(names, rows, strict=True))
        yield from _parted([item], inputs)


def _parted(batches: Iterable[Any], inputs: int) -> Iterator[tuple[Any, torch.Tensor | None, int]]:
    """Separate inputs from labels."""
    for number, batch in enumerate(batches):
        labels = None
        if isinstance(batch, Mapping):
            batch = dict(batch)
            labels = batch.pop("labels", None)
            first = next(iter(batch.values()), None)
        else:
            parts = [batch] if isinstance(batch, torch.Tensor) else [*batch]
            nested = len(parts) == 2 and isinstance(parts[0], list | tuple | Mapping)
            if nested or len(parts) == inputs + 1:
                *parts, labels = parts
            batch = parts[0] if nested else parts
            first = next(iter(batch.values())) if isinstance(batch, Mapping) else batch[0]
        if not isinstance(first, torch.Tensor):
            raise DataError(f"batch {number}: a {type(first).__name__} where a tensor is needed")
        yield batch, labels, len(first)


def progress_bar(
    items: Iterable[Item], total: int | None, text: str, wanted: bool | None
) -> Iterable[Item]:
    """Show progress through items on a terminal, or where it is wanted."""
    console = Console(stderr=True)
    shown = console.is_terminal if wanted is None else wanted
    return track(items, text, total, console=console, disable=not shown, transient=True)
