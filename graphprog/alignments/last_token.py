"""The value at the last token of each text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from graphprog.alignments.base import Alignment, home_of
from graphprog.alignments.token_readout import Picked, require_by_token
from graphprog.spec.registry import spec

if TYPE_CHECKING:
    from graphprog.ir.graph import Graph


@spec("last-token")
@dataclass(frozen=True)
class LastToken(Alignment):
    """What a model gives at the last token that is there: [B, S, F] to [B, F].

    Which tokens are there is told by the graph's mask, whichever side is padded; without a mask it
    is the last position. At ``logits`` these are the scores of the next token, and the head is
    computed for that one position.
    """

    in_front_of_head: ClassVar[bool] = True

    def reads(self, graph: Graph) -> tuple[str, ...]:
        """The mask, where there is one."""
        from graphprog.analysis.token_inputs import TokenInputs

        mask = TokenInputs.of(graph).mask
        return (mask,) if mask else ()

    def build(self, values: torch.Tensor, generator: torch.Generator) -> nn.Module:
        """The module for values without a mask."""
        return self.build_reading((values,), 0, generator)

    def build_reading(
        self, values: tuple[torch.Tensor, ...], head: int, generator: torch.Generator
    ) -> Picked:
        """Values [B, S, F], and the mask [B, S], to [B, F].

        Raises:
            ProgramError: the values have no axis of tokens, or another one than the mask.
        """
        require_by_token(self.kind, self.at, values, head, marks=len(values) > max(head, 1))
        return Picked(head=head).to(home_of(values[0]))
