"""What was written, and what is streamed while it is."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class GeneratedText:
    """What a model wrote behind a prompt.

    Attributes:
        prompt: number of the prompt.
        ids: token ids, without the one that ended it; with those of a stop string.
        ended: ``end``: by a token that ends texts; ``stop``: by a stop string; ``length``: by
            nothing but the limit.
        log_probability: sum over all tokens written of their log-probability under the model,
            before anything is done to its scores; natural logarithm.
        text: without a stop string and what is behind it; empty where there is no tokenizer.
        answer: what the program's parser reads in the text, or its
            :class:`graphprog.text.Unparsed`; None where it has no parser.

    Example:
        >>> (text,) = gp.generate(language, ["Hi"], max_new_tokens=4)
        >>> assert text.log_probability < 0
        >>> len(text.ids), text.ended
        (4, 'length')
    """

    prompt: int
    ids: tuple[int, ...]
    ended: str
    log_probability: float
    text: str = ""
    answer: Any = None


@dataclasses.dataclass(frozen=True)
class GeneratedToken:
    """A token that has just been written.

    Attributes:
        row: number of the text it belongs to.
        id: of the token.
        text: what the text became longer by; empty while a character is incomplete, and where
            there is no tokenizer.

    Example:
        >>> written = []
        >>> texts = gp.generate(language, ["Hi"], max_new_tokens=4, streamer=written.append)
        >>> assert tuple(token.id for token in written) == texts[0].ids
    """

    row: int
    id: int
    text: str
