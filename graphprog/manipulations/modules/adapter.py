"""Bottleneck adapters: h + s · W_up σ(W_down h)."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from graphprog.errors import ProgramError
from graphprog.manipulations.base import Manipulation
from graphprog.spec.checks import require_choice
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext
from graphprog.values.layers import ACTIVATIONS, affine
from graphprog.values.requirements import last_size, require_floats


@spec("adapter")
@dataclasses.dataclass(frozen=True)
class Adapter(Manipulation):
    """A bottleneck beside a value: ``h + scale · W_up σ(W_down h)``; a fresh one changes nothing.

    Sequential, as by Houlsby et al., ICML 2019, and Pfeiffer et al., EACL 2021, where the
    bottleneck reads the value that it is added to. Parallel, as by He et al., ICLR 2022, where it
    reads another: ``Adapter(at="layers.*.mlp:out", beside="layers.*.mlp:in")``. The last axis is
    mapped, so channels of images belong last. W_up starts at zero, W_down as linear layers do.

    Attributes:
        beside: what the bottleneck of a parallel adapter reads; see :attr:`Manipulation.reads`.
        width: of the bottleneck; None divides the width of what it reads by ``reduction``.
        reduction: at least 1.
        activation: σ; one of :data:`graphprog.values.layers.ACTIVATIONS`.
        scale: factor of what is added.

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
        if self.width is not None and self.width < 1:
            raise ProgramError(f"adapter: width {self.width} is not positive")
        if not self.reduction >= 1:
            raise ProgramError(f"adapter: reduction {self.reduction} is below 1")

    @property
    def reads(self) -> tuple[str, ...]:
        """What the bottleneck reads, if not the value itself."""
        return (self.beside,) if self.beside else ()

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for float values [..., d] and, if parallel, [..., e].

        Raises:
            InterfaceError: a value carries no floats, or its last axis varies.
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
        """Add what the bottleneck makes of x, or of h."""
        added: torch.Tensor = self.up(self.activation(self.down(h if x is None else x)))
        return h + (added if self.scale == 1.0 else added * self.scale)
