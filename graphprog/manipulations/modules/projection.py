"""Feature projections: x (I + E) and x W."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from graphprog.manipulations.selective import SelectiveManipulation
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext
from graphprog.values.layers import Affine
from graphprog.values.requirements import last_size, require_floats


@spec("projection")
@dataclasses.dataclass(frozen=True)
class Projection(SelectiveManipulation):
    """Learned linear map of the last axis, which starts as the identity.

    At ``features`` it adapts the input of a frozen head. The residual form ``x + x Eᵀ`` starts at
    E = 0, and weight decay pulls it toward the source; the other form, ``x Wᵀ``, starts at W = I.

    Attributes:
        residual: whether to use the residual form.
        bias: whether to add a bias, which starts at zero.

    Example:
        >>> task = gp.compile(graph, gp.Program([gp.Projection(at="features")]))
        >>> assert torch.equal(task(images), graph(images))  # a fresh one changes nothing
    """

    residual: bool = True
    bias: bool = False

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for a float value [..., d].

        Raises:
            InterfaceError: the value is not floating point, or its last axis is dynamic.
        """
        require_floats(context.value, context.where)
        return _LinearMap(last_size(context.value, context.where), self.residual, self.bias)


class _LinearMap(nn.Module):
    """Forward: [..., d] -> [..., d]."""

    def __init__(self, size: int, residual: bool, bias: bool) -> None:
        super().__init__()
        self.residual = residual
        self.map = Affine(size, size, bias=bias)
        nn.init.zeros_(self.map.weight) if residual else nn.init.eye_(self.map.weight)
        if bias:
            nn.init.zeros_(self.map.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map."""
        mapped: torch.Tensor = self.map(x)
        return x + mapped if self.residual else mapped
