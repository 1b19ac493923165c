"""Fixed instructions before or after a query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphprog.spec.checks import require_choice, require_text
from graphprog.spec.registry import spec
from graphprog.text.prompting.part import TextPart


@spec("instruction")
@dataclass(frozen=True)
class Instruction(TextPart):
    r"""Instruction: a fixed text before or after every query.

    ``Instruction("Is the review good or bad?").render(query)``. With demonstrations it stands once,
    before the first of them.

    Attributes:
        text: the instruction.
        place: ``before`` or ``after`` the query. An instruction after the query is the last text
            that the model reads, so the query should not end mid-sentence. It is always kept as
            text.
        separator: text between instruction and query.
        kept: see :class:`graphprog.text.TextPart`.

    Example:
        >>> rule = gp.Instruction("Answer in one word.")
        >>> task = gp.compile(language, gp.Program([rule]))  # as keys and values, computed once
        >>> rule.render("Is it warm?")
        'Answer in one word.\n\nIs it warm?'
    """

    text: str
    place: Literal["before", "after"] = "before"
    separator: str = "\n\n"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_text(self.kind, "text", self.text)
        require_choice(self.kind, "place", self.place, ("before", "after"))
        require_text(self.kind, "separator", self.separator, blank=True)

    def render(self, text: str) -> str:
        """Add the instruction to a text; spaces at the end are removed."""
        parts = (self.text, text) if self.place == "before" else (text, self.text)
        return self.separator.join(parts).rstrip(" \t")
