"""Score whole answers by the log-probabilities of their tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import nn
from torch.nn import functional

from graphprog.alignments.base import Alignment
from graphprog.alignments.token_readout import require_by_token
from graphprog.alignments.verbalizers.words import as_words
from graphprog.analysis.token_inputs import TokenInputs
from graphprog.errors import ProgramError
from graphprog.ir.graph import Graph
from graphprog.spec.checks import require_choice
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext

Normalized = Literal["sum", "token", "byte", "prior"]


@spec("score")
@dataclass(frozen=True)
class Score(Alignment):
    """Score whole answers by log-probability: ``Score({"pos": " very good", "neg": " bad"})``.

    The graph returns the log-probability of every token given those before it [B, S], and 0 for
    the first token. ``task.score(queries)`` runs every answer after every query and sums over the
    tokens of the answer.

    Attributes:
        answers: labels and the text of their answer, as a mapping, as pairs, or as texts alone,
            which are then labels too. Stored as pairs of label and a tuple of one text.
        by: ``sum``; ``token``, the mean over tokens; ``byte``, the mean over bytes of UTF-8;
            ``prior``, relative to the score after a content-free query (Holtzman et al., EMNLP
            2021).
        content_free: text of that query, in place of every field.

    Example:
        >>> program = gp.Program([gp.Instruction("Q:")], align=gp.Score(["yes", "nay"]))
        >>> task = gp.compile(language, program)
        >>> scores = task.score(["Is it so?"])
    """

    may_come_first: ClassVar[bool] = False

    answers: tuple[tuple[str, tuple[str, ...]], ...]
    by: Normalized = field(default="sum", kw_only=True)
    content_free: str = field(default="N/A", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = self.answers
        object.__setattr__(self, "answers", as_words(self.kind, "answers", given))
        require_choice(self.kind, "by", self.by, get_args(Normalized))
        if several := [label for label, texts in self.answers if len(texts) > 1]:
            raise ProgramError(f"{self.kind}: {several[0]!r} has several answers; give one")
        if not isinstance(self.content_free, str):
            raise ProgramError(
                f"{self.kind}: content_free must be text, not {self.content_free!r:.60}"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in order."""
        return tuple(label for label, _ in self.answers)

    @property
    def texts(self) -> tuple[str, ...]:
        """The answers, in order."""
        return tuple(texts[0] for _, texts in self.answers)

    def reads(self, graph: Graph) -> tuple[str, ...]:
        """The ids."""
        return (TokenInputs.of(graph).ids,)

    def build(self, context: BuildContext) -> nn.Module:
        """Logits [B, S, V] and ids [B, S] to log-probabilities [B, S].

        Raises:
            ProgramError: the logits have no token axis, or one of another length than the ids.
        """
        require_by_token(self, context)
        return _TokenScores(torch.promote_types(context.value.dtype, torch.float32))


class _TokenScores(nn.Module):
    """Forward: logits [B, S, V], ids [B, S] -> log-probabilities [B, S] of the tokens."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Gather, at least in float32, since small differences matter."""
        given = logits[:, :-1].to(self.dtype)
        chosen = given.gather(2, ids[:, 1:, None].long()).squeeze(2)
        return functional.pad(chosen - given.logsumexp(2), (1, 0))
