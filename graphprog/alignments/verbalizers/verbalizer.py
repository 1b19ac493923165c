"""Labels read off the words that a language model would write."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

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
    """Labels as words: ``Verbalizer({"pos": [" good", " great"], "neg": " bad"})``.

    The logits of the words' tokens, where the answer stands, become logits of the labels; their
    softmax is the distribution over labels (Schick & Schütze, EACL 2021; several words: Hu et al.,
    ACL 2022). Words are written as they follow the text: with a space in front unless the template
    has it. Of the head, the rows of these tokens are computed and no others.

    Attributes:
        words: labels and their words, as a mapping, as pairs, or as words alone.
        position: ``last``: the word is what a causal model would write next. ``mask``: it fills
            the mask token of a masked language model, which stands where the template has its
            answer.
        of_tokens: of a word with several tokens, the logit of the ``first``, or their ``mean`` or
            ``max``.
        of_words: of several words, the ``mean`` of their logits, which is that of their
            log-probabilities up to what all labels share; the ``max``; or the ``sum`` of their
            probabilities.
        content_free: texts to put in place of every field of a query. What the labels get then,
            when compiled, is divided out (contextual calibration, Zhao et al., ICML 2021);
            ``gp.text.CONTENT_FREE`` are the texts of the paper. Empty divides by nothing.

    Example:
        >>> words = gp.Verbalizer({"good": ("g",), "bad": ("b",)})
        >>> task = gp.compile(language, gp.Program([gp.Instruction("Say b or g:")], align=words))
        >>> task.encode(["a warm film"])["ids"].shape
        torch.Size([1, 11])
    """

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
            raise ProgramError(f"{self.kind}: content_free is {texts!r:.60}, not texts")
        object.__setattr__(self, "content_free", texts)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in order."""
        return tuple(label for label, _ in self.words)

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return len(self.words)

    def with_tokens(self, prompt: Prompt) -> LabelTokens:
        """The labels as tokens.

        Raises:
            ProgramError: a word is not one of the tokenizer's where the answer stands; two labels
                are the same tokens.
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
        """Refuse: words have no tokens yet.

        Raises:
            ProgramError: always.
        """
        raise ProgramError(f"{self.kind} is compiled for a tokenizer")
