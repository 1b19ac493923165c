"""Conversion of examples to tensors: arrays, numbers and lists of numbers; and stacking them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from numbers import Number
from typing import Any

import numpy
import torch
from torch.utils import _pytree as pytree
from torch.utils.data import default_collate

from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import DataError


def tensors_of(value: Any, task: ReprogrammedModel, place: str) -> Any:
    """Return a tree of tensors, arrays, numbers and lists of numbers as a tree of tensors.

    Arrays and numbers of floats become float32, or float64 for a task that takes float64; those of
    integers int64, except bytes. Tensors are returned unchanged.

    Raises:
        DataError: a leaf is anything else; the message has the place.
    """
    wide = any(spec.dtype == torch.float64 for spec in task.inputs)
    floats = torch.float64 if wide else torch.float32

    def convert(leaf: Any) -> torch.Tensor:
        if isinstance(leaf, torch.Tensor):
            return leaf
        made = _tensor(leaf)
        if made is None:
            raise DataError(
                f"{place}: a {type(leaf).__name__} where a tensor, an array or a number is needed",
                ["convert it in the data set: torch.as_tensor(value)"],
            )
        if made.dtype in (torch.float16, torch.float32, torch.float64):
            return made.to(floats)
        return made.long() if made.dtype in (torch.int8, torch.int16, torch.int32) else made

    return pytree.tree_map(convert, _plain(value), is_leaf=_is_numbers)


def stack(examples: Mapping[int, Any], task: ReprogrammedModel, name: str) -> Any:
    """Return examples as one, every tensor of it with a batch axis.

    Args:
        examples: examples of one form, by number.
        task: as for :func:`tensors_of`.
        name: name of the split, for messages.

    Raises:
        DataError: an example has another form or other shapes than the first; names both.
    """
    found = {
        number: tensors_of(example, task, f"{name} example {number}")
        for number, example in examples.items()
    }
    first, wanted = next((number, _form(example)) for number, example in found.items())
    for number, example in found.items():
        if (form := _form(example)) != wanted:
            raise DataError(
                f"{name} example {number} is {form}, but example {first} is {wanted}: examples of "
                "different shapes cannot be stacked",
                [
                    "pad or resize them to one shape in the data set",
                    "pass a DataLoader with a collate_fn that pads, or with batch_size=1",
                ],
            )
    return default_collate(list(found.values()))


def unreadable(place: str, source: str, error: Exception) -> DataError:
    """Return the error of data that cannot be read.

    Args:
        place: which example or batch.
        source: what raised the error.
        error: the error that it raised.
    """
    first = (str(error).strip().splitlines() or [""])[-1]
    remedies = ["read that example alone to see the whole error", "leave it out of the data"]
    if "equal size" in str(error) or "stack" in str(error):
        remedies = ["pass a collate_fn that pads the examples of a batch to one length"]
    return DataError(f"{place}: {source} raised {type(error).__name__}: {first:.300}", remedies)


def _plain(value: Any) -> Any:
    """Return mappings of any class as dicts, which trees are made of."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if type(value) in (tuple, list) and not _is_numbers(value):
        return type(value)(map(_plain, value))
    return value


def _is_numbers(value: Any) -> bool:
    """Whether a value is a list of numbers, or of lists of them: one tensor, not several."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(part, Number) or _is_numbers(part) for part in value)


def _tensor(value: Any) -> torch.Tensor | None:
    """Return an array, a number or a list of numbers as a tensor; None for anything else."""
    if not isinstance(value, numpy.ndarray | numpy.generic | Number | list):
        return None
    try:
        array = numpy.asarray(value)
        if array.ndim:
            array = numpy.ascontiguousarray(array)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return torch.as_tensor(array)
    except (TypeError, ValueError):
        return None


def _form(example: Any) -> str:
    """Return an example as text: names and shapes."""
    if isinstance(example, Mapping):
        return f"{{{', '.join(f'{name}: {_form(part)}' for name, part in example.items())}}}"
    if isinstance(example, tuple | list):
        return f"({', '.join(map(_form, example))})"
    return str(list(example.shape))
