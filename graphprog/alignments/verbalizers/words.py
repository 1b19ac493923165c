"""Words of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphprog.errors import ProgramError

Words = tuple[tuple[str, tuple[str, ...]], ...]
"""Each label with its words."""


def as_words(kind: str, field: str, given: Any) -> Words:
    """Normalize labels and words given as a mapping, as pairs, or as words alone.

    Words alone, stripped of whitespace, are their own labels.

    Raises:
        ProgramError: names the spec and what is wrong.
    """
    if isinstance(given, Mapping):
        pairs = list(given.items())
    elif isinstance(given, Sequence) and not isinstance(given, str):
        pairs = [(item.strip(), item) if isinstance(item, str) else item for item in given]
    else:
        raise ProgramError(
            f"{kind}: {field} must map labels to words, not {given!r:.60}",
            [f'give {field} such as {{"good": " good", "bad": " bad"}}'],
        )
    found = tuple(_pair(kind, field, pair) for pair in pairs)
    if len(found) < 2 or len({label for label, _ in found}) < len(found):
        raise ProgramError(f"{kind}: {field} must have at least two labels, each once")
    owners: dict[str, str] = {}
    for label, words in found:
        for word in words:
            if owners.setdefault(word, label) != label or words.count(word) > 1:
                raise ProgramError(f"{kind}: {word!r:.60} is already a word of {owners[word]!r}")
    return found


def _pair(kind: str, field: str, pair: Any) -> tuple[str, tuple[str, ...]]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ProgramError(f"{kind}: {field} has {pair!r:.60}, which is not a label with its words")
    label, words = pair
    words = (words,) if isinstance(words, str) else words
    if not isinstance(label, str) or not label.strip():
        raise ProgramError(f"{kind}: {field} has the label {label!r:.60}, which is not text")
    if not isinstance(words, tuple | list) or not words:
        raise ProgramError(f"{kind}: {field} has no words for {label!r:.60}")
    for word in words:
        if not isinstance(word, str) or not word.strip():
            raise ProgramError(
                f"{kind}: {field} has {word!r:.60} for {label!r:.60}, which is not a word"
            )
    return label, tuple(words)
