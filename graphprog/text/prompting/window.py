"""Context windows: how many tokens a model can read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphprog.errors import DataError, ProgramError
from graphprog.spec.checks import require_integer


@dataclass(frozen=True)
class Window:
    """Context window: the number of tokens that a text and its answer must fit into.

    ``Window(1024, lambda text: len(tokenizer(text)["input_ids"]), reserve=16)``.

    Attributes:
        limit: number of tokens that the model can read.
        count_tokens: number of tokens of a whole text. Include text that is added later:
            ``lambda text: count(instruction.render(text))``.
        reserve: number of tokens reserved for the answer.

    Example:
        >>> window = gp.text.Window(8, lambda text: len(text.split()))
        >>> window.holds("a text of five words")
        True
    """

    limit: int
    count_tokens: Callable[[str], int]
    reserve: int = 0

    def __post_init__(self) -> None:
        require_integer("window", "limit", self.limit, 1)
        require_integer("window", "reserve", self.reserve, 0)
        if self.reserve >= self.limit:
            raise ProgramError(
                f"window: reserve {self.reserve} must be less than the limit {self.limit}"
            )

    def holds(self, text: str) -> bool:
        """Whether a text and the reserve fit into the window."""
        return self.count_tokens(text) + self.reserve <= self.limit

    def overflow(self, text: str) -> DataError:
        """The error for a text that does not fit."""
        return DataError(
            f"a query has {self.count_tokens(text)} tokens without demonstrations, but the window "
            f"has {self.limit - self.reserve} (limit {self.limit}, reserve {self.reserve}): "
            f"{text!r:.80}",
            ["shorten the query", "choose a model with a longer context"],
        )
