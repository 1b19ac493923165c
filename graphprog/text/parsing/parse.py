"""Parse an answer by a regular expression, as a number, or as JSON."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from graphprog.spec.checks import require_choice, require_pattern
from graphprog.spec.registry import spec
from graphprog.text.parsing.answers import AnswerParser, Unparsed
from graphprog.text.parsing.json_answers import ParseJSON
from graphprog.text.parsing.numbers import ParseNumber, read_number
from graphprog.utils.patterns import find_all

_TYPES = {int: "int", float: "float", str: "str"}
_Type: TypeAlias = Literal["int", "float", "str"] | type[int] | type[float] | type[str]


@spec("parse")
@dataclass(frozen=True)
class Parse(AnswerParser):
    r"""Parse answers by a regular expression: ``Parse(r"answer is (-?\d+)", type=int)``.

    Calling it on a text returns the value, or :class:`graphprog.text.Unparsed`; no text raises.

    Attributes:
        pattern: in RE2's syntax, which is that of :mod:`re` without references and looks around;
            its only group is the answer, or without a group the whole match.
        pick: ``last`` or ``first`` of the matches.
        type: ``int``, ``float`` or ``str``, as classes or by name; stored as names. Numbers are
            parsed as :class:`graphprog.text.ParseNumber` does and must be the whole answer; texts
            are stripped.

    Example:
        >>> parse = gp.Parse(r"answer is (-?\d+)", type=int)
        >>> parse("23 + 47: the answer is 70.")
        70
    """

    pattern: str
    pick: Literal["last", "first"] = "last"
    type: _Type = "str"

    def __post_init__(self) -> None:
        require_pattern(self.kind, "pattern", self.pattern)
        require_choice(self.kind, "pick", self.pick, ("last", "first"))
        name = _TYPES.get(self.type, "") if isinstance(self.type, builtins.type) else self.type
        require_choice(self.kind, "type", name, tuple(_TYPES.values()))
        object.__setattr__(self, "type", name)

    def __call__(self, text: str) -> int | float | str | Unparsed:
        """Parse a text: the value of the picked match, or :class:`graphprog.text.Unparsed`."""
        found = list(find_all(self.pattern, text))
        if not found:
            return Unparsed(text, f"nothing matches {self.pattern!r:.80}")
        answer = found[-1 if self.pick == "last" else 0].strip()
        if not answer:
            return Unparsed(text, "the match is empty")
        if self.type == "str":
            return answer
        value = _number(answer, whole=self.type == "int")
        return (
            Unparsed(
                text, f"{answer!r:.40} is not {'an' if self.type == 'int' else 'a'} {self.type}"
            )
            if value is None
            else value
        )

    @staticmethod
    def number(pick: Literal["last", "first"] = "last") -> ParseNumber:
        """Make a parser of numbers in running text."""
        return ParseNumber(pick)

    @staticmethod
    def json(schema: Mapping[str, Any] | str, pick: Literal["last", "first"] = "last") -> ParseJSON:
        """Make a parser of JSON that matches a schema; for its keywords see :class:`ParseJSON`.

        Raises:
            ProgramError: the schema has keywords or types that are not supported.
        """
        return ParseJSON.of(schema, pick)


def _number(answer: str, whole: bool) -> int | float | None:
    value = read_number(answer)
    if whole:
        return value if isinstance(value, int) else None
    try:
        return None if value is None else float(value)
    except OverflowError:
        return None
