"""The alignment of a program whose target labels are the source's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from graphprog.alignments.base import Alignment
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext


@spec("identity")
@dataclass(frozen=True)
class Identity(Alignment):
    """The outputs of the source model as they are: any shape, any dtype, nothing inserted.

    Example:
        >>> task = gp.compile(graph, gp.Program([gp.Additive()], align=gp.Identity()))
        >>> task(images).shape  # the source's own classes
        torch.Size([4, 20])
    """

    is_identity: ClassVar[bool] = True

    def build(self, context: BuildContext) -> nn.Identity:
        """A module that returns its input."""
        return nn.Identity()
