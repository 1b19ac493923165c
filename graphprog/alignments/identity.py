"""The alignment of a program whose target labels are the source's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from graphprog.alignments.base import Alignment
from graphprog.spec.registry import spec


@spec("identity")
@dataclass(frozen=True)
class Identity(Alignment):
    """The outputs of the source model as they are: any shape, any dtype, nothing inserted."""

    is_identity: ClassVar[bool] = True

    def build(self, values: torch.Tensor, generator: torch.Generator) -> nn.Identity:
        """A module that returns its input."""
        return nn.Identity()
