"""Trainable layers: replace an affine layer of the source by one of the program."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from graphprog.errors import ProgramError
from graphprog.manipulations.selective import SelectiveManipulation
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext
from graphprog.values.layers import Affine, affine
from graphprog.values.requirements import last_size, require_floats

_END = ":out"


@spec("trainable-layer")
@dataclasses.dataclass(frozen=True)
class TrainableLayer(SelectiveManipulation):
    """Replace an affine layer of the source by a trained one with new initial values.

    ``gp.TrainableLayer(at="classifier:out")`` trains the head of a source together with a prompt,
    if the head is not the last operation, or if another library is to load it. The layer is
    initialized as U(±1/√inputs).

    Attributes:
        at: output of the layer, such as ``score:out``; its input is ``score:in``.
        bias: whether the layer has a bias.

    Example:
        >>> task = gp.compile(graph, gp.Program([gp.TrainableLayer(at="head:out")]))
        >>> task(images).shape
        torch.Size([4, 20])
    """

    bias: bool = True

    def __post_init__(self) -> None:
        if not self.at.endswith(_END):
            raise ProgramError(
                f"{self.kind} replaces a layer, but {self.at!r} is not the output of a layer",
                ['set at="classifier:out"'],
            )

    @property
    def reads(self) -> tuple[str, ...]:
        """Input of the layer."""
        return (f"{self.at.removesuffix(_END)}:in",)

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for float outputs [..., m] and inputs [..., n] of the layer.

        Raises:
            InterfaceError: a value is not floating point, or its last axis is dynamic.
        """
        result, (given,), where = context.value, context.read, context.where
        for value in (result, given):
            require_floats(value, where)
        outputs, inputs = last_size(result, where), last_size(given, where)
        return _Layer(affine(inputs, outputs, context.generator, bias=self.bias))


class _Layer(nn.Module):
    """Forward: output [..., m] and input [..., n] of the source's layer -> [..., m]."""

    def __init__(self, layer: Affine) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, old: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Map."""
        mapped: torch.Tensor = self.layer(x)
        return mapped
