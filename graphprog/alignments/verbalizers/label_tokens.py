"""Labels as groups of tokens: a verbalizer compiled for one tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import torch
from torch import nn

from graphprog.alignments.base import Alignment, home_of
from graphprog.alignments.token_readout import Picked, require_by_token
from graphprog.analysis.token_inputs import TokenInputs
from graphprog.errors import ProgramError
from graphprog.ir.graph import Graph
from graphprog.spec.checks import require_choice, require_texts
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext

OfTokens = Literal["first", "mean", "max"]
OfWords = Literal["mean", "max", "sum"]


@spec("label-tokens")
@dataclass(frozen=True)
class LabelTokens(Alignment):
    """Logits of labels from the logits of tokens, at the last token or at a mask token.

    Attributes:
        tokens: for each label, for each of its words, its token ids.
        mask: id of the mask token that is read; None reads the last token.
        of_tokens: see :class:`graphprog.Verbalizer`.
        of_words: likewise.
        calibrated: whether content-free log-probabilities are subtracted, a buffer ``prior``.
        labels: names of the labels, for messages.
    """

    tokens: tuple[tuple[tuple[int, ...], ...], ...]
    mask: int | None = field(default=None, kw_only=True)
    of_tokens: OfTokens = field(default="first", kw_only=True)
    of_words: OfWords = field(default="mean", kw_only=True)
    calibrated: bool = field(default=False, kw_only=True)
    labels: tuple[str, ...] = field(default=(), kw_only=True)

    takes_layer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice(self.kind, "of_tokens", self.of_tokens, get_args(OfTokens))
        require_choice(self.kind, "of_words", self.of_words, get_args(OfWords))
        require_texts(self.kind, "labels", self.labels)
        if not self.tokens or not all(words and all(words) for words in self.tokens):
            raise ProgramError(f"{self.kind}: a label or a word has no tokens")
        seen: dict[tuple[int, ...], int] = {}
        for number, words in enumerate(self.tokens):
            for word in words:
                read = word[:1] if self.of_tokens == "first" else word
                if seen.setdefault(read, number) != number:
                    raise ProgramError(
                        f"labels {self._name(seen[read])} and {self._name(number)} have words of "
                        f"the same tokens {list(read)}, so their logits would be equal",
                        [
                            "use other words",
                            "set of_tokens='mean', if only the first tokens are the same",
                            "use gp.Score, which scores whole answers",
                        ],
                    )

    def _name(self, number: int) -> str:
        return repr(self.labels[number]) if self.labels else str(number)

    @property
    def classes(self) -> int:
        """Number of labels."""
        return len(self.tokens)

    def reads(self, graph: Graph) -> tuple[str, ...]:
        """The ids, which show the mask token; or the padding mask, if the graph has one."""
        inputs = TokenInputs.of(graph)
        name = inputs.mask if self.mask is None else inputs.ids
        return (name,) if name else ()

    @property
    def inserted_mark(self) -> int:
        """An inserted entry is a token, and not the mask token."""
        return 1 if self.mask is None else -1

    def build(self, context: BuildContext) -> Picked:
        """Logits [B, S, V] to logits of labels [B, L].

        Raises:
            ProgramError: the values have no token axis, or a smaller vocabulary.
        """
        size = require_by_token(self, context)
        words = [word for label in self.tokens for word in label]
        rows = sorted({token for word in words for token in word})
        if rows[-1] >= size:
            raise ProgramError(
                f"{self.kind}: there is no token {rows[-1]}; {self.at!r} has {size}",
                ["capture the model with its own tokenizer: gp.capture(..., tokenizer=...)"],
            )
        numbers = {token: number for number, token in enumerate(rows)}
        if self.of_tokens == "first":
            words = [word[:1] for word in words]
        by_word = _Groups([[numbers[token] for token in word] for word in words], self.of_tokens)
        place = iter(range(len(words)))
        labels = [[next(place) for _ in label] for label in self.tokens]
        then = _Labels(by_word, _Groups(labels, self.of_words), self.calibrated)
        head = len(context.layer)
        made = Picked(equal=self.mask, rows=torch.tensor(rows), then=then, head=head)
        return made.to(home_of(context.value))


class _Groups(nn.Module):
    """Forward: values [B, N] -> one value per group [B, G]."""

    table: torch.Tensor
    absent: torch.Tensor

    def __init__(self, groups: Sequence[Sequence[int]], by: str) -> None:
        super().__init__()
        self.by = by
        longest = max(map(len, groups))
        table = [[*group, *[0] * (longest - len(group))] for group in groups]
        absent = [[place >= len(group) for place in range(longest)] for group in groups]
        self.register_buffer("table", torch.tensor(table), persistent=False)
        self.register_buffer("absent", torch.tensor(absent), persistent=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Gather and combine."""
        if self.table.shape[1] == 1:
            return values[:, self.table[:, 0]]
        members = values[:, self.table]
        if self.by == "mean":
            present = (~self.absent).to(values.dtype)
            return (members * present).sum(2) / present.sum(1)
        members = members.masked_fill(self.absent, float("-inf"))
        return members.logsumexp(2) if self.by == "sum" else members.amax(2)


class _Labels(nn.Module):
    """Forward: logits of tokens [B, R] -> logits of labels [B, L]."""

    prior: torch.Tensor | None

    def __init__(self, words: _Groups, labels: _Groups, calibrated: bool) -> None:
        super().__init__()
        self.words = words
        self.labels = labels
        prior = torch.zeros(len(labels.table)) if calibrated else None
        self.register_buffer("prior", prior)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Combine tokens to words and words to labels, then subtract the prior."""
        found: torch.Tensor = self.labels(self.words(values))
        return found if self.prior is None else found - self.prior
