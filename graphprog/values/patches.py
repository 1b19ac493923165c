"""Patches: cut a series or an image into a sequence of vectors."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod

import torch
from torch import nn

from graphprog.errors import InterfaceError, ProgramError
from graphprog.spec.checks import require_integer
from graphprog.spec.registry import Spec, spec

__all__ = ["ImagePatches", "Patches", "SeriesPatches"]

Size = int | torch.SymInt


@dataclasses.dataclass(frozen=True)
class Patches(Spec):
    """Base of specs that cut an input [B, ...] into patches [B, T, width].

    Example:
        >>> cut = gp.patches.SeriesPatches(patch=4, stride=2)
        >>> assert isinstance(cut, gp.patches.Patches)
        >>> cut.build()(torch.rand(2, 12)).shape
        torch.Size([2, 6, 4])
    """

    @property
    @abstractmethod
    def width(self) -> int:
        """Numbers in a patch."""

    @abstractmethod
    def shape(self, length: Size, where: str) -> tuple[Size, ...]:
        """Shape of an input, without the batch, that makes ``length`` patches."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Make the module from [B, ...] to [B, T, width]; it has no parameters."""


@spec("series-patches")
@dataclasses.dataclass(frozen=True)
class SeriesPatches(Patches):
    """Overlapping patches of a series [B, L] or [B, L, channels].

    As in Time-LLM (Jin et al., ICLR 2024): every series is normalized by its own mean and standard
    deviation (outputs are not scaled back), and its last value is repeated ``padding`` times at the
    end. There are (L + padding - patch) / stride + 1 patches, a whole number.

    Attributes:
        patch: number of time steps per patch.
        stride: distance between patches, at most ``patch``.
        channels: number of series in one patch; None for an input without channel axis.
        normalize: whether to normalize every series.
        padding: number of values that are repeated; None fills the last patch, for L / stride
            patches. Time-LLM has one stride.

    Example:
        >>> cut = gp.patches.SeriesPatches(patch=4, stride=4, normalize=False)
        >>> cut.build()(torch.rand(2, 12)).shape
        torch.Size([2, 3, 4])
    """

    patch: int = 16
    stride: int = 8
    channels: int | None = None
    normalize: bool = True
    padding: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.patch or (self.channels or 1) < 1:
            raise ProgramError(
                f"series patches: patch {self.patch}, stride {self.stride}, channels "
                f"{self.channels} do not match",
                [f"set stride= from 1 to {self.patch}, and channels= to 1 or more"],
            )
        if self.padding is not None:
            require_integer(self.kind, "padding", self.padding, 0)
            if self.padding > self.patch:
                raise ProgramError(
                    f"{self.kind}: padding {self.padding} is longer than a patch of {self.patch}",
                    [f"set padding= from 0 to {self.patch}, or to None"],
                )

    @property
    def repeated(self) -> int:
        """Number of values that are repeated at the end."""
        return self.patch - self.stride if self.padding is None else self.padding

    @property
    def width(self) -> int:
        """Numbers in a patch."""
        return self.patch * (self.channels or 1)

    def shape(self, length: Size, where: str) -> tuple[Size, ...]:
        """(L,) or (L, channels), with the L that makes as many patches.

        Raises:
            InterfaceError: the graph has so few tokens that the series is empty.
        """
        size = length * self.stride + (self.patch - self.stride - self.repeated)
        if isinstance(size, int) and size < 1:
            raise InterfaceError(
                f"{where}: {length} tokens are too few for patches with padding {self.repeated}",
                ["capture the source with longer examples", "set a smaller padding="],
            )
        return (size,) if self.channels is None else (size, self.channels)

    def build(self) -> nn.Module:
        """Make the module."""
        return _SeriesPatching(self)


class _SeriesPatching(nn.Module):
    """Forward: [B, L] or [B, L, C] -> [B, T, patch · C]."""

    def __init__(self, spec: SeriesPatches) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        """Normalize, pad, cut."""
        spec = self.spec
        if spec.channels is None:
            series = series[..., None]
        if spec.normalize:
            mean = series.mean(1, keepdim=True)
            variance = series.var(1, keepdim=True, correction=0)
            series = (series - mean) / torch.sqrt(variance + 1e-5)
        padded = torch.cat([series, series[:, -1:].expand(-1, spec.repeated, -1)], 1)
        patches: torch.Tensor = padded.unfold(1, spec.patch, spec.stride)  # [B, T, C, patch]
        return patches.transpose(2, 3).flatten(2)


@spec("image-patches")
@dataclasses.dataclass(frozen=True)
class ImagePatches(Patches):
    """Square patches of an image [B, C, H, W], row by row.

    Attributes:
        image: shape (channels, height, width).
        patch: side length of a patch, which divides height and width.

    Example:
        >>> cut = gp.patches.ImagePatches(image=(3, 8, 8), patch=4)
        >>> cut.build()(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 4, 48])
    """

    image: tuple[int, int, int]
    patch: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", tuple(self.image))
        _, *sides = self.image
        fits = self.patch > 0 and not any(side % self.patch for side in sides)
        if len(sides) != 2 or not fits:
            raise ProgramError(f"patches of {self.patch} do not divide images of {self.image}")

    @property
    def width(self) -> int:
        """Numbers in a patch."""
        return self.image[0] * self.patch**2

    @property
    def count(self) -> int:
        """Number of patches of an image."""
        return self.image[1] // self.patch * (self.image[2] // self.patch)

    def shape(self, length: Size, where: str) -> tuple[Size, ...]:
        """Shape of the image, which must have as many patches as the graph has tokens.

        Raises:
            InterfaceError: the number of patches differs, or the graph's length is dynamic.
        """
        if isinstance(length, torch.SymInt) or length != self.count:
            known = "varies" if isinstance(length, torch.SymInt) else f"is {length}"
            raise InterfaceError(
                f"{where}: images of {self.image} have {self.count} patches, but the number of "
                f"tokens {known}",
                [
                    f"capture the source with examples of {self.count} tokens",
                    "capture the source with dynamic_axes for the batch only",
                ],
            )
        return self.image

    def build(self) -> nn.Module:
        """Make the module."""
        return nn.Sequential(nn.Unfold(self.patch, stride=self.patch), _Transposing())


class _Transposing(nn.Module):
    """Forward: [B, m, n] -> [B, n, m]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Swap the last two axes."""
        return x.transpose(1, 2)
