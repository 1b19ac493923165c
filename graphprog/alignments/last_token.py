"""Alignment that reads the last token of each text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphprog.alignments.base import Alignment, home_of
from graphprog.alignments.token_readout import Picked, require_by_token
from graphprog.analysis.token_inputs import TokenInputs
from graphprog.ir.graph import Graph
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext


@spec("last-token")
@dataclass(frozen=True)
class LastToken(Alignment):
    """Value at the last token that is not padding: [B, S, F] to [B, F].

    The graph's mask marks padding, on either side; without a mask the last position is read. At
    ``logits`` these are the scores of the next token, and the head is computed for that position
    only. Entries that a prompt inserts count as tokens.

    Example:
        >>> task = gp.compile(language, gp.Program(align=gp.LastToken()))
        >>> assert torch.allclose(task(ids), language(ids)[:, -1], atol=1e-6)
    """

    takes_layer: ClassVar[bool] = True

    def reads(self, graph: Graph) -> tuple[str, ...]:
        """The mask, if the graph has one."""
        mask = TokenInputs.of(graph).mask
        return (mask,) if mask else ()

    @property
    def inserted_mark(self) -> int:
        """An inserted entry is a token."""
        return 1

    def build(self, context: BuildContext) -> Picked:
        """Values [B, S, F], and the mask [B, S], to [B, F].

        Raises:
            ProgramError: the values have no token axis, or one of another length than the mask.
        """
        require_by_token(self, context)
        return Picked(head=len(context.layer)).to(home_of(context.value))
