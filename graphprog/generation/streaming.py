"""Texts during generation: detokenization, stop strings, streaming."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphprog.generation.output import GeneratedText, GeneratedToken

_INCOMPLETE = "\ufffd"


class Text:
    """A text during generation.

    Args:
        row: its number.
        prompt: number of its prompt.
        tokenizer: decodes the tokens; None for ids only.
        ends: ids of tokens that end it.
        stop: strings that end it.
        streamer: called with every token.
    """

    def __init__(
        self,
        row: int,
        prompt: int,
        tokenizer: Any,
        ends: frozenset[int],
        stop: Sequence[str],
        streamer: Callable[[GeneratedToken], None] | None,
    ) -> None:
        self.row = row
        self.prompt = prompt
        self.tokenizer = tokenizer
        self.ends = ends
        self.stop = stop
        self.streamer = streamer
        self.ids: list[int] = []
        self.text = ""
        self.streamed = 0
        self.log_probability = 0.0
        self.ended = ""

    def again(self) -> Text:
        """Return an empty text with the same settings, without a streamer."""
        return Text(self.row, self.prompt, self.tokenizer, self.ends, self.stop, None)

    def add(self, number: int, log_probability: float) -> None:
        """Append a token."""
        self.log_probability += log_probability
        if number in self.ends:
            self.ended = "end"
            self._stream(number)
            return
        self.ids.append(number)
        if self.tokenizer is not None:
            self.text = self.tokenizer.decode(self.ids, skip_special_tokens=True)
            places = [self.text.find(word) for word in self.stop]
            found = [place for place in places if place >= 0]
            if found:
                self.text, self.ended = self.text[: min(found)], "stop"
        self._stream(number)

    def _stream(self, number: int) -> None:
        """Stream the new text that will not change: a character may need several tokens."""
        if self.streamer is None:
            return
        safe = len(self.text)
        if not self.ended:
            safe = len(self.text.rstrip(_INCOMPLETE)) - self._may_stop()
        new = self.text[self.streamed : max(safe, self.streamed)]
        self.streamed += len(new)
        self.streamer(GeneratedToken(self.row, number, new))

    def _may_stop(self) -> int:
        """Return how many characters at the end may begin a stop string."""
        return max(
            (
                size
                for word in self.stop
                for size in range(1, len(word))
                if self.text.endswith(word[:size])
            ),
            default=0,
        )

    def output(self, parser: Callable[[str], Any] | None) -> GeneratedText:
        """The result."""
        answer = parser(self.text) if parser is not None else None
        return GeneratedText(
            self.prompt,
            tuple(self.ids),
            self.ended or "length",
            self.log_probability,
            self.text,
            answer,
        )
