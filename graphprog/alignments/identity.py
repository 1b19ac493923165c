"""Identity alignment, for target labels that are the source's own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from graphprog.alignments.base import Alignment
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext


@spec("identity")
@dataclass(frozen=True)
class Identity(Alignment):
    """Leave the outputs of the source model unchanged: any shape, any dtype, nothing inserted.

    With ``at=`` the value of that interface is the output, as it is.

    Example:
        >>> task = gp.compile(graph, gp.Program([gp.Additive()], align=gp.Identity()))
        >>> task(images).shape  # the source's own classes
        torch.Size([4, 20])
    """

    @property
    def is_identity(self) -> bool:
        """Whether the outputs stay as they are: another interface becomes the output."""
        return self.at == "logits"

    def build(self, context: BuildContext) -> nn.Module:
        """A module that returns the value that is read."""
        return _Same()


class _Same(nn.Module):
    """Forward: values -> the same values, as an operation of its own."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return them."""
        same: torch.Tensor = torch.ops.aten.alias.default(values)
        return same
