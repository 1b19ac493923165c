"""Functions for both NumPy arrays and PyTorch tensors."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from graphprog.errors import DataError

Array = TypeVar("Array", npt.NDArray[Any], torch.Tensor)
"""Functions return the type that they are given, with its dtype and device."""


def require_floats(name: str, values: object) -> None:
    """Refuse anything but an array of floating-point numbers.

    Raises:
        DataError: naming the argument.
    """
    if not isinstance(values, np.ndarray | torch.Tensor):
        raise DataError(
            f"{name} must be a NumPy array or PyTorch tensor, not {type(values).__name__}"
        )
    floating = (
        values.is_floating_point()
        if isinstance(values, torch.Tensor)
        else np.issubdtype(values.dtype, np.floating)
    )
    if not floating:
        raise DataError(f"{name} has dtype {values.dtype}; floating-point numbers are needed")


def require_no_nan(name: str, values: Any) -> None:
    """Refuse an array with entries that are not a number.

    Raises:
        DataError: naming the argument.
    """
    isnan = torch.isnan(values) if isinstance(values, torch.Tensor) else np.isnan(values)
    if bool(isnan.any()):
        raise DataError(f"{name} has entries that are not a number (NaN)")


def require_alike(first: str, left: object, second: str, right: object) -> None:
    """Refuse a NumPy array together with a PyTorch tensor.

    Raises:
        DataError: naming both arguments.
    """
    if isinstance(left, torch.Tensor) != isinstance(right, torch.Tensor):
        raise DataError(
            f"{first} is a {type(left).__name__}, {second} a {type(right).__name__}; both must be "
            "NumPy arrays, or both PyTorch tensors",
            ["convert one of them with torch.from_numpy(array) or tensor.numpy()"],
        )
