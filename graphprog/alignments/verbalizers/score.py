"""Answers scored by the log-probabilities of their tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

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
    """Log-probabilities of whole answers: ``Score({"pos": " very good", "neg": " bad"})``.

    In the graph it is the log-probability of every token given those before it [B, S]; of the
    first one, before which there is none, 0. ``task.score(queries)`` runs every answer behind every
    query and adds up what belongs to the answers.

    Attributes:
        answers: labels and the text of their answer, as a mapping, as pairs, or as texts alone,
            which are then labels too. Kept as pairs of label and texts, of which there is one.
        by: ``sum``; ``token``, the mean over the tokens; ``byte``, over the bytes of UTF-8;
            ``prior``, relative to what the answer has behind a query without content (Holtzman et
            al., EMNLP 2021).
        content_free: that query, in place of every field.

    Example:
        >>> program = gp.Program([gp.Instruction("Q:")], align=gp.Score(["yes", "nay"]))
        >>> task = gp.compile(language, program)
        >>> scores = task.score(["Is it so?"])
    """

    answers: tuple[tuple[str, tuple[str, ...]], ...]
    by: Normalized = field(default="sum", kw_only=True)
    content_free: str = field(default="N/A", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = self.answers
        object.__setattr__(self, "answers", as_words(self.kind, "answers", given))
        require_choice(self.kind, "by", self.by, get_args(Normalized))
        if several := [label for label, texts in self.answers if len(texts) > 1]:
            raise ProgramError(f"{self.kind}: {several[0]!r} has several answers; one is scored")
        if not isinstance(self.content_free, str):
            raise ProgramError(f"{self.kind}: content_free is {self.content_free!r:.60}, no text")

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
            ProgramError: the logits have no axis of tokens, or another one than the ids.
        """
        require_by_token(self, context)
        return _TokenScores(torch.promote_types(context.value.dtype, torch.float32))


class _TokenScores(nn.Module):
    """Forward: logits [B, S, V], ids [B, S] -> log-probabilities [B, S] of the tokens."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Gather; in float32 at least, since small differences count."""
        given = logits[:, :-1].to(self.dtype)
        chosen = given.gather(2, ids[:, 1:, None].long()).squeeze(2)
        return functional.pad(chosen - given.logsumexp(2), (1, 0))
