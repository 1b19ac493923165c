"""From text to the numbers of tokens: what is asked of a tokenizer, and what it is known by."""

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
    """A tokenizer as Hugging Face transformers have them.

    Attributes:
        tokenizer: ``tokenizer(text, add_special_tokens=...)`` gives a mapping with ``input_ids``.
        front: the special tokens in front of every text, such as that of its beginning.
        back: those behind every text, such as that of its end.

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
                f"the tokenizer {self.name} does more to a text than to put special tokens around "
                f"it: {whole} for {plain}",
                ["a tokenizer that adds its special tokens in front and behind"],
            )
        object.__setattr__(self, "front", tuple(whole[:place]))
        object.__setattr__(self, "back", tuple(whole[place + len(plain) :]))

    @property
    def name(self) -> str:
        """Name of the tokenizer's class."""
        return type(self.tokenizer).__name__

    def plain(self, text: str) -> list[int]:
        """The tokens of a text, without special tokens around it."""
        return self._call(text, False)

    def opened(self, text: str) -> list[int]:
        """The tokens of a text that goes on: with the special tokens in front alone."""
        return [*self.front, *self.plain(text)]

    def _call(self, text: str, special: bool) -> list[int]:
        try:
            found = self.tokenizer(text, add_special_tokens=special)["input_ids"]
            return [int(number) for number in found]
        except (TypeError, KeyError, ValueError) as error:
            raise ProgramError(
                f"{self.name} is no tokenizer as transformers have them: {error}",
                [
                    "transformers.AutoTokenizer.from_pretrained(...)",
                    "transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)",
                ],
            ) from error

    @property
    def pad(self) -> int:
        """What stands where a row has no token."""
        number = getattr(self.tokenizer, "pad_token_id", None)
        return 0 if number is None else int(number)

    @property
    def mask(self) -> tuple[str, int]:
        """The token of a gap that a masked language model fills, as text and number.

        Raises:
            ProgramError: the tokenizer has none.
        """
        text = getattr(self.tokenizer, "mask_token", None)
        if text is None:
            raise ProgramError(
                f"the tokenizer {self.name} has no mask token",
                ["position='last', for a model that continues a text"],
            )
        return str(text), int(self.tokenizer.mask_token_id)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the vocabulary and of what some texts become."""
        vocabulary: dict[str, int] = getattr(self.tokenizer, "get_vocab", dict)()
        found = [[self._call(text, special) for special in (False, True)] for text in _PROBES]
        text = json.dumps([sorted(vocabulary.items()), found])
        return hashlib.sha256(text.encode()).hexdigest()


def inner(
    word: str, whole: Sequence[int], left: Sequence[int], right: Sequence[int] = ()
) -> tuple[int, ...]:
    """The tokens of a word within a text.

    Args:
        word: for messages.
        whole: tokens of the text.
        left: tokens of what stands in front of the word.
        right: tokens of what stands behind it.

    Raises:
        DataError: the word shares a token with what stands beside it, or has none.
    """
    end = len(whole) - len(right)
    around = [*whole[: len(left)], *whole[end:]]
    if end <= len(left) or around != [*left, *right]:
        raise DataError(
            f"{word!r:.60} does not become tokens of its own where the answer stands",
            [f"{' ' + word.strip()!r:.60}, with one space in front", "another word"],
        )
    return tuple(whole[len(left) : end])


def shared_start(rows: list[list[int]]) -> tuple[int, ...]:
    """The tokens with which all rows begin, leaving each at least one of its own."""
    shortest = min(map(len, rows)) - 1
    for place in range(shortest):
        if len({row[place] for row in rows}) > 1:
            return tuple(rows[0][:place])
    return tuple(rows[0][: max(shortest, 0)])


def require_tokenizer(tokenizer: Any, wanted_by: str) -> TextTokens:
    """The tokenizer of a graph.

    Raises:
        ProgramError: there is none, or it is not one.
    """
    if tokenizer is None:
        raise ProgramError(
            f"{wanted_by} needs a tokenizer, and the graph has none",
            ["gp.capture(model, args, tokenizer=AutoTokenizer.from_pretrained(...))"],
        )
    return TextTokens(tokenizer)
