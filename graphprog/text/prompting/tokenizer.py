"""Tokenizers: token ids, special tokens, and a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from graphprog.errors import DataError, ProgramError

_PROBES = (
    "a b",
    "The quick brown fox, 12 + 345 = 357; (x) [y] {z}!",
    " leading\n\nlines\tand  spaces ",
    "UPPER lower MiXed snake_case don't e.g. 3.14 -1",
    "äöü ß é 中文 русский ½ \N{EURO SIGN}\N{GRINNING FACE}",
)


@dataclass(frozen=True, eq=False)
class TextTokens:
    """Wrapper of a Hugging Face tokenizer.

    Attributes:
        tokenizer: ``tokenizer(text, add_special_tokens=...)`` returns a mapping with ``input_ids``.
        front: the special tokens before every text, such as BOS.
        back: the special tokens after every text, such as EOS.

    Example:
        >>> tokens = gp.text.TextTokens(tokenizer)
        >>> tokens.plain("Hi")
        [72, 105]
    """

    tokenizer: Any
    front: tuple[int, ...] = field(init=False)
    back: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        whole, plain = self._call("a b", True), self.plain("a b")
        starts = range(len(whole) - len(plain) + 1)
        place = next((at for at in starts if whole[at : at + len(plain)] == plain), None)
        if place is None:
            raise ProgramError(
                f"the tokenizer {self.name} does more than put special tokens before and after a "
                f"text: {whole} for {plain}",
                ["use a tokenizer that adds special tokens only before and after the text"],
            )
        object.__setattr__(self, "front", tuple(whole[:place]))
        object.__setattr__(self, "back", tuple(whole[place + len(plain) :]))

    @property
    def name(self) -> str:
        """Name of the tokenizer's class."""
        return type(self.tokenizer).__name__

    def plain(self, text: str) -> list[int]:
        """Tokenize a text without special tokens."""
        return self._call(text, False)

    def opened(self, text: str) -> list[int]:
        """Tokenize a text to be continued: with special tokens before it and none after it."""
        return [*self.front, *self.plain(text)]

    def _call(self, text: str, special: bool) -> list[int]:
        try:
            found = self.tokenizer(text, add_special_tokens=special)["input_ids"]
            return [int(number) for number in found]
        except (TypeError, KeyError, ValueError) as error:
            raise ProgramError(
                f"{self.name} is not a tokenizer of transformers: {error}",
                [
                    "use transformers.AutoTokenizer.from_pretrained(...)",
                    "use transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)",
                ],
            ) from error

    @property
    def pad(self) -> int:
        """Id of the padding token; 0 if the tokenizer has none."""
        number = getattr(self.tokenizer, "pad_token_id", None)
        return 0 if number is None else int(number)

    @property
    def mask(self) -> tuple[str, int]:
        """The mask token of a masked language model, as text and id.

        Raises:
            ProgramError: the tokenizer has none.
        """
        text = getattr(self.tokenizer, "mask_token", None)
        if text is None:
            raise ProgramError(
                f"the tokenizer {self.name} has no mask token",
                ["set position='last', for a model that continues a text"],
            )
        return str(text), int(self.tokenizer.mask_token_id)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the vocabulary and of the tokens of some texts."""
        vocabulary: dict[str, int] = getattr(self.tokenizer, "get_vocab", dict)()
        found = [[self._call(text, special) for special in (False, True)] for text in _PROBES]
        text = json.dumps([sorted(vocabulary.items()), found])
        return hashlib.sha256(text.encode()).hexdigest()


def inner(
    word: str, whole: Sequence[int], left: Sequence[int], right: Sequence[int] = ()
) -> tuple[int, ...]:
    """The tokens of a word within a tokenized text.

    Args:
        word: for messages.
        whole: tokens of the text.
        left: tokens of the text before the word.
        right: tokens of the text after it.

    Raises:
        DataError: the word shares a token with the text beside it, or has none.
    """
    end = len(whole) - len(right)
    around = [*whole[: len(left)], *whole[end:]]
    if end <= len(left) or around != [*left, *right]:
        raise DataError(
            f"{word!r:.60} shares a token with the text around it at the place of the answer",
            [f"write {' ' + word.strip()!r:.60}, with one leading space", "use another word"],
        )
    return tuple(whole[len(left) : end])


def shared_start(rows: list[list[int]]) -> tuple[int, ...]:
    """The longest common prefix of all rows that leaves at least one token of each."""
    shortest = min(map(len, rows)) - 1
    for place in range(shortest):
        if len({row[place] for row in rows}) > 1:
            return tuple(rows[0][:place])
    return tuple(rows[0][: max(shortest, 0)])


def require_tokenizer(tokenizer: Any, wanted_by: str) -> TextTokens:
    """Wrap the tokenizer of a graph.

    Raises:
        ProgramError: the graph has none, or it is not a tokenizer.
    """
    if tokenizer is None:
        raise ProgramError(
            f"{wanted_by} needs a tokenizer, and the graph has none",
            ["call gp.capture(model, args, tokenizer=AutoTokenizer.from_pretrained(...))"],
        )
    return TextTokens(tokenizer)
