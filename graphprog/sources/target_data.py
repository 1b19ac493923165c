"""What data say of a task: the shape of an example, and the classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from graphprog.errors import DataError


@dataclasses.dataclass(frozen=True)
class TargetData:
    """What training data say.

    Attributes:
        shape: shape of one example, without the batch; empty if inputs are several.
        classes: number of classes.
        labels: names of the classes; empty if the data do not name them.
    """

    shape: tuple[int, ...]
    classes: int
    labels: tuple[str, ...]


def described(data: Any, labels: Sequence[str] = ()) -> TargetData:
    """Read shape and classes from training data, in any form that ``fit`` takes.

    Args:
        data: tensors, a data set, or a loader.
        labels: names of the classes; by default those in ``data.classes``, if it has them.

    Raises:
        DataError: the labels are not class numbers, or more than the names.
    """
    if isinstance(data, DataLoader):
        data = data.dataset
    names = tuple(map(str, labels or getattr(data, "classes", ())))
    inputs, targets = _parts(data)
    if targets.ndim != 1 or targets.dtype.is_floating_point or not len(targets):
        raise DataError(
            f"labels of shape {tuple(targets.shape)} and {targets.dtype} are not class numbers",
            ["pass (inputs, labels) with int64 labels [B]", "gp.compile and gp.fit take others"],
        )
    classes = int(targets.max()) + 1
    if names and classes > len(names):
        raise DataError(f"label {classes - 1} has no name: there are {len(names)} names")
    shape = tuple(inputs.shape[1:]) if isinstance(inputs, torch.Tensor) else ()
    return TargetData(shape, len(names) or classes, names)


def _parts(data: Any) -> tuple[Any, torch.Tensor]:
    """Return inputs, as a batch if there is one input, and all labels."""
    if isinstance(data, Mapping):
        given = [value for name, value in data.items() if name != "labels"]
        only = torch.as_tensor(given[0]) if len(given) == 1 else None
        return only, torch.as_tensor(data["labels"])
    if isinstance(data, tuple | list) and not _is_items(data):
        whole = data[0] if len(data) == 2 else None
        inputs = torch.as_tensor(whole) if hasattr(whole, "shape") else None
        return inputs, torch.as_tensor(data[-1])
    if isinstance(data, IterableDataset):
        raise DataError(
            f"a {type(data).__name__} cannot be searched for its classes",
            ["pass a gp.Program as the method, whose alignment has the number of classes"],
        )
    first = data[0][0]
    inputs = torch.as_tensor(first)[None] if hasattr(first, "shape") else None
    targets = getattr(data, "targets", None)
    found = [data[row][1] for row in range(len(data))] if targets is None else targets
    return inputs, torch.as_tensor(found)


def _is_items(data: Sequence[Any]) -> bool:
    """Whether a list holds examples, rather than inputs and labels."""
    return isinstance(data[0], tuple | list)
