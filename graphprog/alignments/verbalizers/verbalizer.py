"""Verbalizers: labels as words that a language model would write."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from torch import nn

from graphprog.alignments.base import Alignment
from graphprog.alignments.verbalizers.label_tokens import LabelTokens, OfTokens, OfWords
from graphprog.alignments.verbalizers.words import as_words
from graphprog.errors import ProgramError
from graphprog.spec.checks import require_choice
from graphprog.spec.registry import spec
from graphprog.text.prompting.answer_place import answer_tokens
from graphprog.text.prompting.prompt import Prompt
from graphprog.values.context import BuildContext

Position = Literal["last", "mask"]


@spec("verbalizer")
@dataclass(frozen=True)
class Verbalizer(Alignment):
    """Verbalizer, labels as words: ``Verbalizer({"pos": [" good", " great"], "neg": " bad"})``.

    The logits of the words' tokens at the place of the answer become logits of the labels; their
    softmax is the distribution over labels (Schick & Schütze, EACL 2021; several words: Hu et al.,
    ACL 2022). Write words as they follow the text: with a leading space unless the template has
    it. Only the rows of these tokens are computed in the head.

    Attributes:
        words: labels and their words, as a mapping, as pairs, or as words alone.
        position: ``last``: the word is what a causal model would write next. ``mask``: it fills
            the mask token of a masked language model, at the answer of the template.
        of_tokens: how the logits of several tokens of a word are combined: the ``first``, or their
            ``mean`` or ``max``.
        of_words: how several words of a label are combined: the ``mean`` of their logits, which
            equals the mean of their log-probabilities up to a constant for all labels; the ``max``;
            or the ``sum`` of their probabilities.
        content_free: texts in place of every field of a query. The probabilities of labels for
            these queries, computed by ``compile``, are divided out (contextual calibration, Zhao
            et al., ICML 2021); ``gp.text.CONTENT_FREE`` are the texts of the paper. Empty does not
            calibrate.

    Example:
        >>> words = gp.Verbalizer({"good": ("g",), "bad": ("b",)})
        >>> task = gp.compile(language, gp.Program([gp.Instruction("Say b or g:")], align=words))
        >>> task.encode(["a warm film"])["ids"].shape
        torch.Size([1, 11])
    """

    may_come_first: ClassVar[bool] = False

    words: tuple[tuple[str, tuple[str, ...]], ...]
    position: Position = field(default="last", kw_only=True)
    of_tokens: OfTokens = field(default="first", kw_only=True)
    of_words: OfWords = field(default="mean", kw_only=True)
    content_free: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = self.words
        object.__setattr__(self, "words", as_words(self.kind, "words", given))
        for name, choices in (
            ("position", Position),
            ("of_tokens", OfTokens),
            ("of_words", OfWords),
        ):
            require_choice(self.kind, name, getattr(self, name), get_args(choices))
        texts: Any = self.content_free
        texts = (texts,) if isinstance(texts, str) else tuple(texts)
        if not all(isinstance(text, str) for text in texts):
            raise ProgramError(f"{self.kind}: content_free must be texts, not {texts!r:.60}")
        object.__setattr__(self, "content_free", texts)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in order."""
        return tuple(label for label, _ in self.words)

    @property
    def classes(self) -> int:
        """Number of labels."""
        return len(self.words)

    def with_tokens(self, prompt: Prompt) -> LabelTokens:
        """Replace the words by their tokens.

        Raises:
            ProgramError: a word shares a token with the text around it; two labels have the same
                tokens.
        """
        tokens = tuple(
            tuple(answer_tokens(prompt, word) for word in words) for _, words in self.words
        )
        return LabelTokens(
            tokens,
            mask=prompt.tokens.mask[1] if self.position == "mask" else None,
            of_tokens=self.of_tokens,
            of_words=self.of_words,
            calibrated=bool(self.content_free),
            labels=self.labels,
            at=self.at,
        )

    def build(self, context: BuildContext) -> nn.Module:
        """Refuse: the words have no tokens yet.

        Raises:
            ProgramError: always.
        """
        raise ProgramError(
            f"{self.kind}: words need a tokenizer", ["compile it into a graph that has a tokenizer"]
        )
