"""Additive patterns that depend on the input."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from graphprog.manipulations.selective import SelectiveManipulation
from graphprog.spec.registry import spec
from graphprog.values.base import Learnable
from graphprog.values.conditioning import Conditioned, MetaNet
from graphprog.values.context import BuildContext
from graphprog.values.requirements import last_size, require_floats


@spec("conditional")
@dataclasses.dataclass(frozen=True)
class Conditional(SelectiveManipulation):
    """Add a vector that depends on the example: ``x + v + π(z)`` along the last axis.

    π is the network of :class:`graphprog.conditioning.Conditioned` with the same initial values, so
    a new program does not start as the source; v starts at zero.

    Attributes:
        features: interface of the features z [B, f]; see :attr:`Manipulation.reads`. They must not
            depend on the value at ``at``.
        reduction: the bottleneck of π has f // reduction units.

    Example:
        >>> moved = gp.Conditional(at="head:in", features="blocks.0:out", reduction=2)
        >>> moved.reads
        ('blocks.0:out',)
    """

    features: str
    reduction: int = 16

    def __post_init__(self) -> None:
        Conditioned(self.features, reduction=self.reduction)

    @property
    def reads(self) -> tuple[str, ...]:
        """The features."""
        return (self.features,)

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for a float value [B, ..., d] and features [B, f].

        Raises:
            InterfaceError: the value or the features have another shape, or are not floating point.
        """
        value = context.value
        require_floats(value, context.where)
        by = Conditioned(self.features, Learnable("zeros"), self.reduction)
        vector = context.of_shape((1, last_size(value, context.where)))
        net = by.entries(dataclasses.replace(vector, axis=1))
        return _ConditionalPattern(net, value.ndim)


class _ConditionalPattern(nn.Module):
    """Forward: x [B, ..., d], z [B, f] -> [B, ..., d]."""

    def __init__(self, net: MetaNet, axes: int) -> None:
        super().__init__()
        self.vector = net
        self.axes = axes

    def forward(self, x: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Add the example's vector everywhere."""
        vector: torch.Tensor = self.vector(features)
        middle = (1,) * (self.axes - 2)
        return x + vector.reshape(-1, *middle, vector.shape[-1]).to(x.dtype)
