"""Sample-specific masks: x + δ ⊙ up(g(x))."""

from __future__ import annotations

import dataclasses
import itertools
import math

import torch
from torch import nn
from torch.nn import functional

from graphprog.errors import ProgramError
from graphprog.manipulations.selective import SelectiveManipulation
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext
from graphprog.values.layers import restart
from graphprog.values.requirements import require_axes, require_floats

_WIDTHS = {5: (8, 16, 32, 64), 6: (8, 16, 32, 64, 128)}


@spec("sample-mask")
@dataclasses.dataclass(frozen=True)
class SampleMask(SelectiveManipulation):
    """Add a shared pattern, masked for every example by a small network applied to it.

    SMM of Cai et al., ICML 2024: ``x + δ ⊙ up(g(x))``, where g consists of 3×3 convolutions with
    batch norm and ReLU, except for the last one, halves height and width after the first
    log2(patch) convolutions, and ``up`` repeats each cell over patch × patch pixels. The network
    has 26,499 parameters for RGB images with 5 layers, which the paper uses for ResNets, and
    102,339 with 6, for vision transformers. δ starts at zero, so a new program does not change the
    source's results. In training, batch norms use and update batch statistics.

    Attributes:
        layers: 5 or 6.
        patch: a power of two that divides height and width, at most 2 ** (layers - 1).

    Example:
        >>> task = gp.compile(graph, gp.Program([gp.SampleMask(layers=5, patch=8)]))
        >>> assert torch.equal(task(images), graph(images))  # the pattern starts at zero
    """

    layers: int = 5
    patch: int = 8

    def __post_init__(self) -> None:
        if self.layers not in _WIDTHS:
            raise ProgramError(f"sample mask: layers must be 5 or 6, not {self.layers}")
        limit = 2 ** (self.layers - 1)
        if self.patch < 1 or self.patch & (self.patch - 1) or self.patch > limit:
            raise ProgramError(
                f"sample mask: patch {self.patch} is not a power of two up to {limit}"
            )

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for float images [B, C, H, W].

        Raises:
            InterfaceError: the value is not floating point, or not images of fixed size.
            ProgramError: the patch does not divide the size of the images.
        """
        value, where = context.value, context.where
        require_floats(value, where)
        channels, height, width = require_axes(value, 3, where, "images [B, C, H, W]")
        if height % self.patch or width % self.patch:
            raise ProgramError(
                f"{where}: patches of {self.patch} do not divide images of {height} by {width}",
                ["set patch= to a power of two that does"],
            )
        module = _MaskedPattern(self, (channels, height, width))
        restart(module, context.generator)
        return module


class _MaskedPattern(nn.Module):
    """Forward: [B, C, H, W] -> [B, C, H, W]."""

    def __init__(self, spec: SampleMask, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(shape))
        self.size = shape[1:]
        widths = (shape[0], *_WIDTHS[spec.layers])
        halvings = int(math.log2(spec.patch))
        layers: list[nn.Module] = []
        for number, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] * (number < halvings)
        layers.append(nn.Conv2d(widths[-1], shape[0], 3, padding=1))
        self.net = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the pattern, masked."""
        weights = functional.interpolate(self.net(x.float()), size=self.size, mode="nearest")
        return x + (self.value * weights).to(x.dtype)
