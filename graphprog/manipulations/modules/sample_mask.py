"""Sample-specific masks: x + δ ⊙ up(g(x))."""

from __future__ import annotations

import dataclasses
import itertools
import math

import torch
from torch import nn
from torch.nn import functional

from graphprog.errors import ProgramError
from graphprog.manipulations.base import Manipulation
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext
from graphprog.values.layers import restart
from graphprog.values.requirements import require_axes, require_floats

_WIDTHS = {5: (8, 16, 32, 64), 6: (8, 16, 32, 64, 128)}


@spec("sample-mask")
@dataclasses.dataclass(frozen=True)
class SampleMask(Manipulation):
    """Add a shared pattern, weighed for every example by a small network of the example.

    SMM of Cai et al., ICML 2024: ``x + δ ⊙ up(g(x))``, where g is 3×3 convolutions with batch norm
    and ReLU, the last one plain, halving height and width behind the first log2(patch) of them,
    and ``up`` repeats each of its cells over patch × patch pixels. The network has 26,499
    parameters for RGB images with 5 layers, which the paper uses for ResNets, and 102,339 with 6,
    for vision transformers. δ starts at zero, so that a fresh program changes nothing in
    evaluation or training. In training the batch norms use the batch and update their statistics.

    Attributes:
        layers: 5 or 6.
        patch: a power of two that divides height and width; at most 2 to the layers but one.

    Example:
        >>> task = gp.compile(graph, gp.Program([gp.SampleMask(layers=5, patch=8)]))
        >>> assert torch.equal(task(images), graph(images))  # the pattern starts at zero
    """

    layers: int = 5
    patch: int = 8

    def __post_init__(self) -> None:
        if self.layers not in _WIDTHS:
            raise ProgramError(f"sample mask: {self.layers} layers; the network has 5 or 6")
        limit = 2 ** (self.layers - 1)
        if self.patch < 1 or self.patch & (self.patch - 1) or self.patch > limit:
            raise ProgramError(
                f"sample mask: patch {self.patch} is not a power of two up to {limit}"
            )

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for float images [B, C, H, W].

        Raises:
            InterfaceError: the interface carries no floats, or no images of fixed size.
            ProgramError: the patch does not divide their size.
        """
        value, where = context.value, context.where
        require_floats(value, where)
        channels, height, width = require_axes(value, 3, where, "images [B, C, H, W]")
        if height % self.patch or width % self.patch:
            raise ProgramError(
                f"{where}: patches of {self.patch} do not divide images of {height} by {width}",
                ["patch= a power of two that does"],
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
