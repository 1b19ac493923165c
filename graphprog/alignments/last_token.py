"""The value at the last token of each text."""

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
    """What a model gives at the last token that is there: [B, S, F] to [B, F].

    Which tokens are there is told by the graph's mask, whichever side is padded; without a mask it
    is the last position. At ``logits`` these are the scores of the next token, and the head is
    computed for that one position.

    Example:
        >>> task = gp.compile(language, gp.Program(align=gp.LastToken()))
        >>> assert torch.allclose(task(ids), language(ids)[:, -1], atol=1e-6)
    """

    takes_layer: ClassVar[bool] = True

    def reads(self, graph: Graph) -> tuple[str, ...]:
        """The mask, where there is one."""
        mask = TokenInputs.of(graph).mask
        return (mask,) if mask else ()

    def build(self, context: BuildContext) -> Picked:
        """Values [B, S, F], and the mask [B, S], to [B, F].

        Raises:
            ProgramError: the values have no axis of tokens, or another one than the mask.
        """
        require_by_token(self, context)
        return Picked(head=len(context.layer)).to(home_of(context.value))
