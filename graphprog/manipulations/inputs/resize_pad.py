"""Resize and pad target examples to the input size of the source model."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from graphprog.errors import ProgramError
from graphprog.manipulations.base import Manipulation
from graphprog.spec.checks import require_choice
from graphprog.spec.registry import spec
from graphprog.values.base import shape_text
from graphprog.values.context import BuildContext
from graphprog.values.masks import leading_pad

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


@spec("resize-pad")
@dataclasses.dataclass(frozen=True)
class ResizePad(Manipulation):
    """Repeat a gray channel, resize, and pad to the center of the source model's input.

    The reprogrammed model then takes unchanged target examples. If the margin is odd, the extra
    pixel goes to the left and top: ⌊(out − in + 1)/2⌋ and ⌊(out − in)/2⌋.

    Attributes:
        shape: shape of one target example, ``(channels, height, width)`` or ``(channels, length)``.
        size: side length (or one length per axis) after resizing; None does not resize.
        interpolation: ``nearest``, ``bilinear`` or ``bicubic``, without antialiasing;
            ``bilinear`` means linear for one axis.
        fill: value of the padding for each channel; empty is zero.

    Example:
        >>> place = gp.ResizePad(shape=(1, 8, 8), size=12)  # gray to RGB, resize, pad
        >>> task = gp.compile(graph, gp.Program([place]))
        >>> task(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 20])
    """

    lowering: ClassVar[str] = "replace-input"

    shape: tuple[int, ...]
    size: int | tuple[int, ...] | None = None
    interpolation: str = "bilinear"
    fill: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if len(self.shape) not in (2, 3) or min(self.shape) < 1:
            raise ProgramError(
                f"{self.kind}: shape {self.shape} is not the shape of one target example",
                ["use ResizePad(shape=(1, 8, 8)) for gray images of 8 by 8"],
            )
        if not isinstance(self.size, int | None):
            object.__setattr__(self, "size", tuple(self.size))
        if self.size is not None and min(self.placed) < 1:
            raise ProgramError(f"{self.kind}: size {self.size} is not positive")
        require_choice(self.kind, "interpolation", self.interpolation, INTERPOLATIONS)

    @property
    def placed(self) -> tuple[int, ...]:
        """Size of the example on the canvas."""
        own = self.shape[1:]
        if self.size is None:
            return own
        return (self.size,) * len(own) if isinstance(self.size, int) else tuple(self.size)

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module from [B, *shape] to the shape of the value.

        Raises:
            ProgramError: the canvas is too small, of another rank, or has other channels.
        """
        value, where = context.value, context.where
        canvas = tuple(value.shape[1:])
        if any(isinstance(size, torch.SymInt) for size in canvas):
            raise ProgramError(
                f"{self.kind}: {where} of shape {shape_text(value)} varies in more than the "
                "batch, so the canvas has no fixed size",
                ["capture the source with dynamic_axes for the batch only"],
            )
        if len(canvas) != len(self.shape):
            raise ProgramError(
                f"{self.kind}: {where} has shape {shape_text(value)}, but the "
                f"target examples have shape {self.shape}"
            )
        if self.shape[0] not in (1, canvas[0]):
            raise ProgramError(
                f"{self.kind}: {self.shape[0]} channels cannot become the {canvas[0]} of {where}",
                ["give gray examples (1 channel), or as many channels as the source takes"],
            )
        if len(self.placed) != len(canvas) - 1 or any(
            inner > outer for inner, outer in zip(self.placed, canvas[1:], strict=True)
        ):
            raise ProgramError(
                f"{self.kind}: {self.placed} does not fit the canvas {canvas[1:]} of {where}",
                ["choose a smaller size", "capture the source on a larger canvas"],
            )
        if len(self.fill) not in (0, 1, canvas[0]):
            raise ProgramError(
                f"{self.kind}: {len(self.fill)} fill values for {canvas[0]} channels"
            )
        return placement(self, tuple(int(size) for size in canvas))


def placement(place: ResizePad, canvas: tuple[int, ...]) -> nn.Module:
    """Make the module from [B, *shape] to a canvas that is known to fit."""
    return _Placement(place, canvas)


class _Placement(nn.Module):
    """Forward: [B, *target shape] -> [B, *canvas]."""

    def __init__(self, place: ResizePad, canvas: tuple[int, ...]) -> None:
        super().__init__()
        self.channels = canvas[0]
        self.placed = place.placed
        self.resize = place.placed != place.shape[1:]
        mode = place.interpolation
        self.mode = "linear" if mode == "bilinear" and len(canvas) == 2 else mode
        self.pads: list[int] = []
        for outer, inner in zip(reversed(canvas[1:]), reversed(self.placed), strict=True):
            before = leading_pad(outer, inner)
            self.pads += [before, outer - inner - before]
        self.fill: torch.Tensor | None
        fill = torch.tensor(place.fill).reshape(-1, *(1,) * len(self.placed))
        self.register_buffer("fill", fill if place.fill else None, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Repeat, resize, pad."""
        if x.shape[1] != self.channels:
            x = x.expand(-1, self.channels, *x.shape[2:])
        if self.resize:
            align = None if self.mode == "nearest" else False
            x = functional.interpolate(x, self.placed, mode=self.mode, align_corners=align)
        if self.fill is None:
            return functional.pad(x, self.pads)
        return functional.pad(x - self.fill, self.pads) + self.fill
