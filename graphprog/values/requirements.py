"""What manipulations require of the value at an interface."""

from __future__ import annotations

import torch

from graphprog.errors import InterfaceError
from graphprog.values.base import shape_text


def require_floats(value: torch.Tensor, where: str) -> None:
    """Check that a value can be computed with.

    Raises:
        InterfaceError: it holds integers or truth values.
    """
    if not value.dtype.is_floating_point:
        raise InterfaceError(
            f"{where} carries {value.dtype}, where a learned part needs floats",
            ["act where integers have become floats: at 'tokens' or 'embedding'"],
        )


def last_size(value: torch.Tensor, where: str) -> int:
    """Size of the last axis, which the parameters of a part are made for.

    Raises:
        InterfaceError: there is none but the batch, or it varies.
    """
    size: int | torch.SymInt = value.shape[-1] if value.ndim else 0
    if value.ndim < 2 or isinstance(size, torch.SymInt):
        raise InterfaceError(
            f"{where} of shape {shape_text(value)} has no last axis of fixed size",
            ["print(graph.interfaces()) shows the shapes", "capture with fewer dynamic axes"],
        )
    return size


def require_axes(value: torch.Tensor, axes: int, where: str, what: str) -> tuple[int, ...]:
    """Sizes behind the batch, of which there must be so many, all fixed.

    Args:
        value: fake tensor [B, ...].
        axes: how many.
        where: interface key, for messages.
        what: such as ``images [B, C, H, W]``.

    Raises:
        InterfaceError: the value has others, or some that vary.
    """
    sizes: tuple[int | torch.SymInt, ...] = tuple(value.shape[1:])
    fixed = tuple(size for size in sizes if not isinstance(size, torch.SymInt))
    if len(sizes) != axes or len(fixed) != axes:
        raise InterfaceError(
            f"{where} of shape {shape_text(value)} does not carry {what} of fixed size",
            ["print(graph.interfaces()) shows the shapes", "capture with fewer dynamic axes"],
        )
    return fixed
