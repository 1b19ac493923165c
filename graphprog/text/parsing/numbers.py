"""Numbers as people and models write them."""

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
# Letters are those of ASCII: scripts without spaces write numbers right behind words.
_WORD = "[A-Za-z0-9_"
_NUMBER = re.compile(
    rf"""
    (?: (?: (?<! {_WORD})\]] ) (?P<outer> {_SIGN} ) )? {_CURRENCY}?  # behind 7 or x it subtracts
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
    """A number in running text; made by ``Parse.number()``.

    It may have a sign (behind a word, a number or a bracket, a minus subtracts instead), a currency
    sign, thousands in groups of three by commas, decimals behind a point, and an exponent; a full
    stop behind it ends the sentence. Digits within words (``H2O``) are no numbers, and a fraction
    (``1/2``) is two.

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
        """An int where neither decimals nor an exponent are written, otherwise a float."""
        found = list(_NUMBER.finditer(text))
        if not found:
            return Unparsed(text, "there is no number")
        match = found[-1 if self.pick == "last" else 0]
        value = _value(match)
        return Unparsed(text, f"{match[0]!r:.40} is out of range") if value is None else value


def read_number(text: str) -> int | float | None:
    """The number that is the whole of a text, a full stop behind it aside; None for other text."""
    match = _NUMBER.fullmatch(text.strip().removesuffix("."))
    return None if match is None else _value(match)


def _value(match: re.Match[str]) -> int | float | None:
    numeral = match["numeral"].replace(",", "")
    negative = (match["outer"] or match["inner"] or "+") != "+"
    try:
        value = int(numeral) if numeral.isdigit() else float(numeral)
    except ValueError:  # more digits than Python reads
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return -value if negative else value
