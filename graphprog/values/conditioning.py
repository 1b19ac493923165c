"""Conditional prompts: P + π(z), with π a small network applied to a feature vector z."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from graphprog.errors import InterfaceError, ProgramError
from graphprog.spec.registry import Spec, spec
from graphprog.values.base import Learnable, shape_text
from graphprog.values.context import BuildContext
from graphprog.values.layers import affine
from graphprog.values.requirements import last_size, require_floats

__all__ = ["Conditioned"]


@spec("conditioned")
@dataclasses.dataclass(frozen=True)
class Conditioned(Spec):
    """Learnt vectors shifted by a function of the example's features: v_j + π(z).

    π is Linear – ReLU – Linear with a bottleneck, the meta-net of CoCoOp (Zhou et al., CVPR 2022);
    it is initialized like linear layers, so examples have different vectors from the first step.
    With d-dimensional features and vectors, P vectors and a reduction of 16 it has
    P·d + d·(d/16) + d/16 + (d/16)·d + d parameters.

    Attributes:
        features: the features [B, f]: an interface, or the second output of another part; see
            :attr:`Manipulation.reads`.
        value: the vectors before the shift.
        reduction: the bottleneck has f // reduction units.

    Example:
        >>> value = gp.conditioning.Conditioned("vision.features", reduction=16)
        >>> prompt = gp.Concatenative(at="text.tokens", length=4, value=value)
        >>> prompt.reads
        ('vision.features',)
    """

    features: str
    value: Learnable = dataclasses.field(default_factory=lambda: Learnable("normal", 0.02))
    reduction: int = 16

    def __post_init__(self) -> None:
        if self.reduction < 1:
            raise ProgramError(f"conditioned: reduction {self.reduction} is below 1")

    @property
    def reads(self) -> tuple[str, ...]:
        """The features."""
        return (self.features,)

    def entries(self, context: BuildContext) -> MetaNet:
        """Make the module for P vectors of d numbers: features [B, f] -> [B, P, d].

        Raises:
            InterfaceError: the features are not one float vector per example.
        """
        features, where = context.read[0], context.where
        require_floats(features, where)
        if features.ndim != 2:
            raise InterfaceError(
                f"{where}: {self.features} of shape {shape_text(features)} is not one vector per "
                "example",
                ["read features after the pooling: features='features'"],
            )
        assert context.axis is not None
        count, width = context.shape[context.axis - 1], context.shape[-1]
        size = last_size(features, where)
        module = MetaNet(size, width, self.reduction, context.generator)
        self.value.attach(
            module, BuildContext(torch.empty(1, count, width), where, context.generator)
        )
        return module


class MetaNet(nn.Module):
    """Forward: features [B, f] -> vectors [B, P, d]."""

    value: torch.Tensor

    def __init__(
        self, features: int, width: int, reduction: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        hidden = max(1, features // reduction)
        self.net = nn.Sequential(
            affine(features, hidden, generator), nn.ReLU(), affine(hidden, width, generator)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Shift every vector by the same function of the features."""
        moves: torch.Tensor = self.net(features)
        return self.value.to(features.dtype) + moves[:, None, :]
