"""Mixtures of additive vectors, weighted by the value that they are added to."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from graphprog.manipulations.selective import SelectiveManipulation
from graphprog.spec.checks import require_integer
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext
from graphprog.values.layers import Affine, affine
from graphprog.values.requirements import last_size, require_floats


@spec("mixture")
@dataclasses.dataclass(frozen=True)
class Mixture(SelectiveManipulation):
    """Add a mixture of learned vectors: ``x_i + Σ_j softmax(W x_i + b)_j p_j``.

    Every token or node computes its own mixture weights. At the node features of a graph network
    this is GPF-plus of Fang et al., NeurIPS 2023; with one vector it is GPF, as is an
    :class:`Additive` of shape ``(d,)``. The vectors have Glorot uniform initial values, so a new
    program does not start as the source.

    Attributes:
        count: number of vectors.

    Example:
        >>> task = gp.compile(graph, gp.Program([gp.Mixture(at="head:in", count=3)]))
        >>> task.program.mixture.value.shape
        torch.Size([3, 8])
    """

    count: int = 5

    def __post_init__(self) -> None:
        require_integer(self.kind, "count", self.count, 1)

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for a float value [..., d].

        Raises:
            InterfaceError: the value is not floating point, or its last axis is dynamic.
        """
        require_floats(context.value, context.where)
        size = last_size(context.value, context.where)
        return _MixedPattern(size, self.count, context.generator)


class _MixedPattern(nn.Module):
    """Forward: [..., d] -> [..., d]."""

    def __init__(self, size: int, count: int, generator: torch.Generator) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.empty(count, size))
        nn.init.xavier_uniform_(self.value, generator=generator)
        self.weigh: Affine = affine(size, count, generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the mixture."""
        weights: torch.Tensor = self.weigh(x).softmax(-1)
        return x + weights @ self.value.to(x.dtype)
