"""Regular expressions of strangers, matched in time linear in pattern and text.

Python's own engine tries alternatives one after the other, so that a pattern such as ``(a+)+b``
takes years over thirty letters. Here all alternatives advance together, one letter at a time. A
pattern may have letters, ``.``, classes, groups, ``|`` and repeats; references and looks around are
refused.
"""

from __future__ import annotations

import re
from re import _constants as code  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from graphprog.errors import FileError

_ANCHORS = re.compile(r"\A\^|(?<!\\)\$\Z")
"""What is true of every comparison of the whole text."""

MAX_PATTERN = 2_000
MAX_STATES = 20_000
MAX_TEXT = 10_000


class LinearPattern:
    """A regular expression, as a machine that is in several states at once.

    Args:
        pattern: the expression, in Python's grammar.
        place: what it is, for messages.

    Raises:
        FileError: it is not an expression, is too large, or needs more than one pass.
    """

    def __init__(self, pattern: str, place: str) -> None:
        self.place = place
        self.pattern = pattern
        self.letters: list[re.Pattern[str] | None] = []
        self.next: list[list[int]] = []
        if len(pattern) > MAX_PATTERN:
            raise self._refusal(f"longer than {MAX_PATTERN} characters")
        try:
            tree = parser.parse(_ANCHORS.sub("", pattern))
        except (re.error, OverflowError, RecursionError) as error:
            raise self._refusal(str(error)) from error
        if tree.state.flags & ~re.UNICODE:
            raise self._refusal("it sets flags")
        end = self._state()
        self.start, self.end = self._built(tree, end), end

    def fullmatch(self, text: str) -> bool:
        """Whether the whole text matches.

        Raises:
            FileError: the text is longer than any name.
        """
        if len(text) > MAX_TEXT:
            raise FileError(f"{self.place}: the name {text!r:.60} is longer than any module's")
        states = self._closure({self.start})
        for letter in text:
            moved: set[int] = set()
            for state in states:
                test = self.letters[state]
                if test is not None and test.fullmatch(letter):
                    moved.update(self.next[state])
            states = self._closure(moved)
            if not states:
                return False
        return self.end in states

    def _closure(self, states: set[int]) -> set[int]:
        """Return the states, and those that follow without a letter."""
        found, pending = set(states), list(states)
        while pending:
            state = pending.pop()
            if self.letters[state] is None:
                fresh = [one for one in self.next[state] if one not in found]
                found.update(fresh)
                pending += fresh
        return found

    def _state(self, letter: re.Pattern[str] | None = None, *then: int) -> int:
        if len(self.letters) >= MAX_STATES:
            raise self._refusal("it repeats too much")
        self.letters.append(letter)
        self.next.append(list(then))
        return len(self.letters) - 1

    def _built(self, tree: Any, then: int) -> int:
        """Add the states of an expression before another; return its first one."""
        for kind, held in reversed(list(tree)):
            then = self._part(kind, held, then)
        return then

    def _part(self, kind: Any, held: Any, then: int) -> int:
        if kind in (code.LITERAL, code.NOT_LITERAL, code.ANY, code.IN):
            return self._state(_letter(kind, held), then)
        if kind is code.SUBPATTERN and not (held[1] or held[2]):
            return self._built(held[3], then)
        if kind is code.BRANCH:
            return self._state(None, *[self._built(one, then) for one in held[1]])
        if kind in (code.MAX_REPEAT, code.MIN_REPEAT):
            least, most, part = held
            return self._repeated(least, most, part, then)
        raise self._refusal(f"{str(kind).lower()} is not supported")

    def _repeated(self, least: int, most: Any, part: Any, then: int) -> int:
        if most is code.MAXREPEAT:
            again = self._state(None, then)
            self.next[again].append(self._built(part, again))
            then = again
        else:
            if most > MAX_STATES:
                raise self._refusal("it repeats too much")
            done = then
            for _ in range(most - least):
                then = self._state(None, done, self._built(part, then))
        if least > MAX_STATES:
            raise self._refusal("it repeats too much")
        for _ in range(least):
            then = self._built(part, then)
        return then

    def _refusal(self, why: str) -> FileError:
        return FileError(f"{self.place}: the pattern {self.pattern!r:.80}: {why}")


def _letter(kind: Any, held: Any) -> re.Pattern[str]:
    """Return the expression of one letter."""
    if kind is code.ANY:
        return re.compile(".")
    if kind in (code.LITERAL, code.NOT_LITERAL):
        negation = "^" if kind is code.NOT_LITERAL else ""
        return re.compile(f"[{negation}{re.escape(chr(held))}]")
    return re.compile("[" + "".join(_member(*item) for item in held) + "]")


_CATEGORIES = {
    code.CATEGORY_DIGIT: r"\d",
    code.CATEGORY_NOT_DIGIT: r"\D",
    code.CATEGORY_SPACE: r"\s",
    code.CATEGORY_NOT_SPACE: r"\S",
    code.CATEGORY_WORD: r"\w",
    code.CATEGORY_NOT_WORD: r"\W",
}


def _member(kind: Any, held: Any) -> str:
    if kind is code.NEGATE:
        return "^"
    if kind is code.RANGE:
        return f"{re.escape(chr(held[0]))}-{re.escape(chr(held[1]))}"
    return _CATEGORIES[held] if kind is code.CATEGORY else re.escape(chr(held))
