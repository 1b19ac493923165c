"""Bottleneck adapters: h + s · W_up σ(W_down h)."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from graphprog.manipulations.selective import SelectiveManipulation
from graphprog.spec.checks import require_choice, require_integer, require_number
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext
from graphprog.values.layers import ACTIVATIONS, affine
from graphprog.values.requirements import last_size, require_floats


@spec("adapter")
@dataclasses.dataclass(frozen=True)
class Adapter(SelectiveManipulation):
    """Bottleneck adapter: ``h + scale · W_up σ(W_down h)``; starts as the identity.

    Sequential adapters (Houlsby et al., ICML 2019; Pfeiffer et al., EACL 2021) read the value that
    they are added to. Parallel adapters (He et al., ICLR 2022) read another:
    ``Adapter(at="layers.*.mlp:out", beside="layers.*.mlp:in")``. The last axis is mapped, so images
    must have channels last. W_up starts at zero, W_down like a linear layer.

    Attributes:
        beside: input of a parallel adapter; see :attr:`Manipulation.reads`.
        width: width of the bottleneck; None divides the width of its input by ``reduction``.
        reduction: at least 1.
        activation: σ; one of :data:`graphprog.values.layers.ACTIVATIONS`.
        scale: factor of the output of the bottleneck.

    Example:
        >>> adapter = gp.Adapter(at="head:in", reduction=2)
        >>> task = gp.compile(graph, gp.Program([adapter]))
        >>> assert torch.equal(task(images), graph(images))  # a fresh one changes nothing
    """

    beside: str = ""
    width: int | None = None
    reduction: float = 16.0
    activation: str = "relu"
    scale: float = 1.0

    def __post_init__(self) -> None:
        require_choice(self.kind, "activation", self.activation, ACTIVATIONS)
        if self.width is not None:
            require_integer(self.kind, "width", self.width, 1)
        require_number(self.kind, "reduction", self.reduction, 1)

    @property
    def reads(self) -> tuple[str, ...]:
        """Input of the bottleneck of a parallel adapter."""
        return (self.beside,) if self.beside else ()

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for float values [..., d] and, if parallel, [..., e].

        Raises:
            InterfaceError: a value is not floating point, or its last axis is dynamic.
        """
        values, where = (context.value, *context.read), context.where
        for value in values:
            require_floats(value, where)
        inner, outer = last_size(values[-1], where), last_size(values[0], where)
        width = max(1, int(inner / self.reduction)) if self.width is None else self.width
        return _Bottleneck(self, inner, width, outer, context.generator)


class _Bottleneck(nn.Module):
    """Forward: h [..., d], and x [..., e] if parallel -> [..., d]."""

    def __init__(
        self, adapter: Adapter, inner: int, width: int, outer: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.down = affine(inner, width, generator)
        self.up = affine(width, outer, generator, zero=True)
        self.activation = ACTIVATIONS[adapter.activation]()
        self.scale = adapter.scale

    def forward(self, h: torch.Tensor, x: torch.Tensor | None = None) -> torch.Tensor:
        """Add the bottleneck of x, or of h."""
        added: torch.Tensor = self.up(self.activation(self.down(h if x is None else x)))
        return h + (added if self.scale == 1.0 else added * self.scale)
