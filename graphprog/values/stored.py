"""Numbers that a program keeps and never trains."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from graphprog.ir.graph import Graph
from graphprog.spec.registry import Spec, spec
from graphprog.values.base import static_shape


@spec("stored")
@dataclasses.dataclass(frozen=True)
class Stored(Spec):
    """A tensor of the interface's shape that is saved, loaded and swapped like what is learnt.

    :func:`graphprog.precompute` puts keys and values there, once and for all. Before, they
    are zero.
    """

    def attach(
        self,
        owner: nn.Module,
        like: torch.Tensor,
        where: str,
        generator: torch.Generator,
        graph: Graph | None = None,
        axis: int | None = None,
    ) -> None:
        """Register ``value`` on a module as a buffer."""
        wide = torch.promote_types(like.dtype, torch.float32)
        owner.register_buffer("value", torch.zeros(static_shape(like), dtype=wide))
