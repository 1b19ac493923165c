"""Checks of the value at an interface."""

from __future__ import annotations

import torch

from graphprog.errors import InterfaceError
from graphprog.values.base import shape_text


def require_floats(value: torch.Tensor, where: str) -> None:
    """Check that a value is floating point.

    Raises:
        InterfaceError: the value has integers or booleans.
    """
    if not value.dtype.is_floating_point:
        raise InterfaceError(
            f"{where} has dtype {value.dtype}, but a learned part needs floating point",
            ["choose an interface after the embedding: at='tokens' or at='embedding'"],
        )


def last_size(value: torch.Tensor, where: str) -> int:
    """Size of the last axis, which determines the shape of parameters.

    Raises:
        InterfaceError: the batch is the only axis, or the last axis is dynamic.
    """
    size: int | torch.SymInt = value.shape[-1] if value.ndim else 0
    if value.ndim < 2 or isinstance(size, torch.SymInt):
        raise InterfaceError(
            f"{where} of shape {shape_text(value)} has no last axis of fixed size",
            ["print(graph.interfaces()) shows the shapes", "capture with fewer dynamic axes"],
        )
    return size


def require_axes(value: torch.Tensor, axes: int, where: str, what: str) -> tuple[int, ...]:
    """Sizes after the batch, checked to be a given number of fixed sizes.

    Args:
        value: fake tensor [B, ...].
        axes: number of axes after the batch.
        where: interface key, for messages.
        what: the expected value, such as ``images [B, C, H, W]``.

    Raises:
        InterfaceError: the value has another number of axes, or dynamic ones.
    """
    sizes: tuple[int | torch.SymInt, ...] = tuple(value.shape[1:])
    fixed = tuple(size for size in sizes if not isinstance(size, torch.SymInt))
    if len(sizes) != axes or len(fixed) != axes:
        raise InterfaceError(
            f"{where} of shape {shape_text(value)} does not have {what} of fixed size",
            ["print(graph.interfaces()) shows the shapes", "capture with fewer dynamic axes"],
        )
    return fixed
