"""The replacement operator: an affine layer of the source, trained anew."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from graphprog.errors import ProgramError
from graphprog.manipulations.base import Manipulation
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext
from graphprog.values.layers import Affine, affine
from graphprog.values.requirements import last_size, require_floats

_END = ":out"


@spec("trainable-layer")
@dataclasses.dataclass(frozen=True)
class TrainableLayer(Manipulation):
    """Put an affine layer of the program's own in the place of one of the source's.

    ``gp.TrainableLayer(at="classifier:out")`` trains the head of a source together with a prompt,
    where that head is not the last thing computed, or where another library is to read it again. It
    starts afresh: U(±1/√inputs).

    Attributes:
        at: the layer's result, such as ``score:out``; ``score:in`` is what it reads.
        bias: whether the layer adds a vector.

    Example:
        >>> task = gp.compile(graph, gp.Program([gp.TrainableLayer(at="head:out")]))
        >>> task(images).shape
        torch.Size([4, 20])
    """

    bias: bool = True

    def __post_init__(self) -> None:
        if not self.at.endswith(_END):
            raise ProgramError(
                f"{self.kind} takes the place of a layer, and {self.at!r} is not one's result",
                ['at="classifier:out"'],
            )

    @property
    def reads(self) -> tuple[str, ...]:
        """What goes into the layer."""
        return (f"{self.at.removesuffix(_END)}:in",)

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for float values [..., m] out of and [..., n] into the layer.

        Raises:
            InterfaceError: they carry no floats, or their last axes vary.
        """
        result, (given,), where = context.value, context.read, context.where
        for value in (result, given):
            require_floats(value, where)
        outputs, inputs = last_size(result, where), last_size(given, where)
        return _Layer(affine(inputs, outputs, context.generator, bias=self.bias))


class _Layer(nn.Module):
    """Forward: what the source's layer gave [..., m], what goes into it [..., n] -> [..., m]."""

    def __init__(self, layer: Affine) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, old: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Map."""
        mapped: torch.Tensor = self.layer(x)
        return mapped
