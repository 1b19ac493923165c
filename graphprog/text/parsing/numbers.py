"""Parse numbers in running text."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from graphprog.spec.checks import require_choice
from graphprog.spec.registry import spec
from graphprog.text.parsing.answers import AnswerParser, Unparsed

_CURRENCY = "[$€£¥]"
_SIGN = "[-+\N{MINUS SIGN}]"
# ASCII letters only: scripts without spaces write numbers directly after words.
_WORD = "[A-Za-z0-9_"
_NUMBER = re.compile(
    rf"""
    (?: (?: (?<! {_WORD})\]] ) (?P<outer> {_SIGN} ) )? {_CURRENCY}?  # after 7 or x it subtracts
      | {_CURRENCY} (?P<inner> {_SIGN} ) )
    (?<! {_WORD}.] )
    (?P<numeral>
      (?: [0-9]{{1,3}} (?: ,[0-9]{{3}} )+ (?! ,?[0-9] ) (?: \.[0-9]+ )?
        | [0-9]+ (?: \.[0-9]+ )?
        | \.[0-9]+ )
      (?: [eE][-+]?[0-9]+ )? )
    """,
    re.VERBOSE,
)


@spec("parse-number")
@dataclass(frozen=True)
class ParseNumber(AnswerParser):
    """Parse a number in running text; made by ``Parse.number()``.

    A number may have a sign (after a word, a number or a bracket, a minus subtracts instead), a
    currency sign, commas between thousands, a decimal point, and an exponent; a period after it
    ends the sentence. Digits within words (``H2O``) are not numbers; a fraction (``1/2``) is two.

    Attributes:
        pick: ``last`` or ``first`` of the numbers.

    Example:
        >>> parse = gp.text.ParseNumber()
        >>> parse("7 boxes of 12 are 84 pens")
        84
    """

    pick: Literal["last", "first"] = "last"

    def __post_init__(self) -> None:
        require_choice(self.kind, "pick", self.pick, ("last", "first"))

    def __call__(self, text: str) -> int | float | Unparsed:
        """Parse a text: an int if the number has neither decimals nor an exponent, else a float."""
        found = list(_NUMBER.finditer(text))
        if not found:
            return Unparsed(text, "there is no number")
        match = found[-1 if self.pick == "last" else 0]
        value = _value(match)
        return Unparsed(text, f"{match[0]!r:.40} is out of range") if value is None else value


def read_number(text: str) -> int | float | None:
    """Parse a text that is nothing but a number, up to a final period; None for other text."""
    match = _NUMBER.fullmatch(text.strip().removesuffix("."))
    return None if match is None else _value(match)


def _value(match: re.Match[str]) -> int | float | None:
    numeral = match["numeral"].replace(",", "")
    negative = (match["outer"] or match["inner"] or "+") != "+"
    try:
        value = int(numeral) if numeral.isdigit() else float(numeral)
    except ValueError:  # more digits than Python parses
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return -value if negative else value
