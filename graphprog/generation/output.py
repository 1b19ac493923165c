"""Results of generation: whole texts, and tokens that are streamed."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class GeneratedText:
    """A text that a model generated for a prompt.

    Attributes:
        prompt: number of the prompt.
        ids: generated token ids, without an end token, but with those of a stop string.
        ended: why generation ended: ``end`` (an end token), ``stop`` (a stop string) or ``length``
            (the limit).
        log_probability: sum of the log-probabilities of all generated tokens under the model,
            without temperature, top_k and top_p; natural logarithm.
        text: the text before a stop string; empty without a tokenizer.
        answer: the answer that the program's parser found in the text, or its
            :class:`graphprog.text.Unparsed`; None without a parser.

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
    """A token that has just been generated.

    Attributes:
        row: number of the text that it belongs to.
        id: id of the token.
        text: the text that it adds; empty while a character is incomplete, and without a
            tokenizer.

    Example:
        >>> streamed = []
        >>> texts = gp.generate(language, ["Hi"], max_new_tokens=4, streamer=streamed.append)
        >>> assert tuple(token.id for token in streamed) == texts[0].ids
    """

    row: int
    id: int
    text: str
