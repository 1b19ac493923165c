"""Masks: the entries of a value that an additive pattern changes."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import Any

import torch

from graphprog.errors import ProgramError
from graphprog.spec.registry import Spec, spec

__all__ = [
    "BorderMask",
    "FullMask",
    "GivenMask",
    "Mask",
    "PatchMask",
    "border",
    "full",
    "given",
    "patch",
]


@dataclasses.dataclass(frozen=True)
class Mask(Spec):
    """Base of masks, which are 1 where the pattern acts and 0 elsewhere.

    Example:
        >>> frame = gp.masks.border(width=2)
        >>> assert isinstance(frame, gp.masks.Mask)
        >>> int(frame.tensor((3, 16, 16)).sum())  # pixels where the pattern acts
        336
    """

    @abstractmethod
    def tensor(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Make the float32 mask for values of this shape (without the batch axis)."""


@spec("full-mask")
@dataclasses.dataclass(frozen=True)
class FullMask(Mask):
    """Mask of the whole value.

    Example:
        >>> everywhere = gp.masks.FullMask()
        >>> everywhere.tensor((2, 2)).sum()
        tensor(4.)
    """

    def tensor(self, shape: tuple[int, ...]) -> torch.Tensor:
        """All ones."""
        return torch.ones(shape)


@spec("border-mask")
@dataclasses.dataclass(frozen=True)
class BorderMask(Mask):
    """Mask of everything except for a centered box; see :func:`border`.

    Example:
        >>> frame = gp.masks.BorderMask(inner=(2, 2))
        >>> frame.tensor((4, 4))[1]
        tensor([1., 0., 0., 1.])
    """

    inner: tuple[int, ...] = ()
    width: int = 0

    def tensor(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Ones outside of the box, along the last axes of the value."""
        canvas = last_axes("border mask", shape, len(self.inner) or min(2, len(shape)))
        inner = self.inner or tuple(max(0, size - 2 * self.width) for size in canvas)
        mask = torch.ones(canvas)
        box = []
        for size, hole in zip(canvas, inner, strict=True):
            if not 0 <= hole <= size:
                raise ProgramError(
                    f"border mask: a box of {inner} does not fit a canvas of {canvas}",
                    ["make inner smaller, or capture the model on a larger canvas"],
                )
            before = leading_pad(size, hole)
            box.append(slice(before, before + hole))
        mask[tuple(box)] = 0
        return mask.expand(shape).clone()


@spec("patch-mask")
@dataclasses.dataclass(frozen=True)
class PatchMask(Mask):
    """Mask of a box at a fixed position; see :func:`patch`.

    Example:
        >>> corner = gp.masks.PatchMask(size=(2, 2), corner=(0, 0))
        >>> corner.tensor((3, 3))[0]
        tensor([1., 1., 0.])
    """

    size: tuple[int, ...]
    corner: tuple[int, ...]

    def tensor(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Ones inside the box, along the last axes of the value."""
        canvas = last_axes("patch mask", shape, len(self.size))
        ends = [start + size for start, size in zip(self.corner, self.size, strict=True)]
        if any(end > limit for end, limit in zip(ends, canvas, strict=True)):
            raise ProgramError(
                f"patch mask: {self.size} at {self.corner} exceeds the canvas {canvas}"
            )
        mask = torch.zeros(canvas)
        mask[tuple(slice(s, e) for s, e in zip(self.corner, ends, strict=True))] = 1
        return mask.expand(shape).clone()


@spec("given-mask")
@dataclasses.dataclass(frozen=True, eq=False)
class GivenMask(Mask):
    """Mask given as a tensor; see :func:`given`.

    Example:
        >>> half = gp.masks.GivenMask(torch.tensor([1.0, 0.0]))
        >>> half.tensor((2, 2))
        tensor([[1., 0.],
                [1., 0.]])
    """

    values: torch.Tensor

    def tensor(self, shape: tuple[int, ...]) -> torch.Tensor:
        """The tensor, broadcast to the value's shape."""
        try:
            return self.values.to(torch.float32).expand(shape).clone()
        except RuntimeError as error:
            raise ProgramError(
                f"mask of shape {tuple(self.values.shape)} does not broadcast to {shape}"
            ) from error

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, GivenMask) and torch.equal(self.values, other.values)

    def __hash__(self) -> int:
        return hash(tuple(self.values.shape))


def last_axes(what: str, shape: tuple[int, ...], axes: int) -> tuple[int, ...]:
    """Sizes of the last axes of a value.

    Raises:
        ProgramError: the value has fewer axes.
    """
    if axes > len(shape):
        raise ProgramError(
            f"{what}: a value of shape {shape}, without the batch, has fewer than {axes} axes"
        )
    return shape[len(shape) - axes :]


def leading_pad(canvas: int, inner: int) -> int:
    """Number of entries before a centered box; if the margin is odd, the extra one is before."""
    return (canvas - inner + 1) // 2


def full() -> FullMask:
    """Make a mask of the whole value.

    Example:
        >>> pattern = gp.Additive(mask=gp.masks.full())
        >>> gp.masks.full().tensor((2, 2)).sum()
        tensor(4.)
    """
    return FullMask()


def border(inner: int | tuple[int, ...] | None = None, width: int | None = None) -> BorderMask:
    """Make a mask of everything except for a centered box.

    Args:
        inner: size of the box; one number means a square along the last two axes, a tuple has one
            size per axis, so ``(16000,)`` leaves the middle of a waveform unchanged.
        width: in place of ``inner``, width of the frame on every side of the last two axes; a
            frame of half the canvas or more covers all of it.

    Raises:
        ProgramError: not exactly one of the two is given.

    Example:
        >>> pattern = gp.Additive(mask=gp.masks.border(inner=12), squash="tanh")
        >>> task = gp.compile(graph, gp.Program([pattern]))
    """
    if (inner is None) == (width is None):
        raise ProgramError("border takes exactly one of inner= and width=")
    if inner is None:
        return BorderMask(width=int(width or 0))
    return BorderMask(inner=(inner, inner) if isinstance(inner, int) else tuple(inner))


def patch(size: int | tuple[int, ...], corner: tuple[int, ...] = (0, 0)) -> PatchMask:
    """Make a mask of a box of ``size`` whose first entry is at ``corner``, along the last axes.

    Example:
        >>> pattern = gp.Additive(mask=gp.masks.patch(4, corner=(0, 12)))
        >>> task = gp.compile(graph, gp.Program([pattern]))
    """
    sizes = (size,) * len(corner) if isinstance(size, int) else tuple(size)
    if len(sizes) != len(corner) or min(sizes, default=0) < 1 or min(corner, default=0) < 0:
        raise ProgramError(f"patch: size {sizes} and corner {corner} do not match")
    return PatchMask(sizes, tuple(corner))


def given(values: torch.Tensor) -> GivenMask:
    """Make a mask from a tensor of any shape that broadcasts to the interface (without batch).

    Example:
        >>> pattern = gp.Additive(mask=gp.masks.given(torch.eye(16)))
        >>> task = gp.compile(graph, gp.Program([pattern]))
    """
    return GivenMask(values.detach().clone())
