"""Linear maps along one axis, as matrices [entries before, entries after]."""

from __future__ import annotations

import torch


def identity(size: int, like: torch.Tensor) -> torch.Tensor:
    """The matrix that changes nothing, in the dtype of another tensor."""
    places = torch.arange(size, device=like.device)
    return (places[:, None] == places).to(like.dtype)


def adaptive_average(before: int, after: int, like: torch.Tensor) -> torch.Tensor:
    """Means over stretches of an axis, from floor(i B / A) to ceil((i + 1) B / A)."""
    number = torch.arange(after, device=like.device) * before
    first = number // after
    last = (number + (before + after - 1)) // after
    places = torch.arange(before, device=like.device)[:, None]
    chosen = ((places >= first) & (places < last)).to(like.dtype)
    return chosen / (last - first).to(like.dtype)


def applied(value: torch.Tensor, matrix: torch.Tensor, axis: int) -> torch.Tensor:
    """A map of an axis, counted from the end."""
    return (value.transpose(axis, -1) @ matrix).transpose(axis, -1)


def transposed(value: torch.Tensor, matrix: torch.Tensor, axis: int) -> torch.Tensor:
    """The gradient of :func:`applied` for the gradient of its result."""
    return applied(value, matrix.transpose(0, 1), axis)
