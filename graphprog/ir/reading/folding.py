"""Folding of repeated rows in a text, such as those of a network's blocks."""

from __future__ import annotations

import dataclasses
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence

_NUMBER = re.compile(r"(\d+)")
_TRIED = 64


@dataclasses.dataclass(frozen=True)
class Row:
    """One row: a name, whose numbers may increase from repeat to repeat, and a constant rest.

    Attributes:
        name: such as ``blocks.3.norm1:in``.
        rest: the part that is equal in every repeat.
    """

    name: str
    rest: Hashable = ()

    @property
    def pattern(self) -> Hashable:
        """Return what is equal in rows that may repeat each other."""
        return _NUMBER.sub("#", self.name), self.rest


@dataclasses.dataclass(frozen=True)
class Run:
    """``count`` repeats of ``period`` rows, from row ``start`` on."""

    start: int
    period: int
    count: int

    @property
    def stop(self) -> int:
        """The first row after the run."""
        return self.start + self.period * self.count

    @property
    def saved(self) -> int:
        """The number of lines saved; a run of several rows gets an extra line above it."""
        return self.period * (self.count - 1) - (self.period > 1)

    def last(self, row: int) -> int:
        """Return the last repeat of one of its first rows."""
        return row + self.period * (self.count - 1)


Linked = Callable[[Run], bool]
"""Whether the last repeat of a run reads what the one before it reads, one repeat later."""


def folded(
    rows: Sequence[Row], least: int = 2, linked: Linked = lambda run: True
) -> Iterator[int | Run]:
    """Fold rows: return row numbers, and runs in place of repeated rows.

    Repeats are equal except for numbers in names, each of which increases by one or stays. A run
    begins at the beginning of a block.

    Args:
        rows: all rows.
        least: minimum number of lines that a run must save.
        linked: a further condition, checked for the first two repeats, the first three, and so on.
    """
    patterns = [row.pattern for row in rows]
    places: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place, pattern in enumerate(patterns):
        places[pattern].append(place)
    start = 0
    while start < len(rows):
        known = places[patterns[start]]
        after = bisect_right(known, start)
        found = [
            _longest(rows, patterns, start, place - start, linked)
            for place in known[after : after + _TRIED]
        ]
        found = [run for run in found if run.saved >= least and _is_of_blocks(rows, run)]
        if found:
            best = max(found, key=lambda run: (run.period * run.count, -run.period))
            yield best
            start = best.stop
        else:
            yield start
            start += 1


def _longest(
    rows: Sequence[Row], patterns: Sequence[Hashable], start: int, period: int, linked: Linked
) -> Run:
    """Return the run with the most repeats for a start and a period."""
    run, steps = Run(start, period, 1), None
    while run.stop + period <= len(rows):
        before, after = run.stop - period, run.stop
        if patterns[before:after] != patterns[after : after + period]:
            break
        taken = [_steps(rows[before + i].name, rows[after + i].name) for i in range(period)]
        longer = dataclasses.replace(run, count=run.count + 1)
        if None in taken or taken != (steps or taken) or not linked(longer):
            break
        run, steps = longer, taken
    return run


def _is_of_blocks(rows: Sequence[Row], run: Run) -> bool:
    """Whether the repeats of a run are blocks: most rows, and none above it, are of its first."""
    if run.count < 2:
        return False
    repeat = rows[run.start : run.start + run.period]
    following = rows[run.start + run.period :]
    first, second = repeat[0].name, following[0].name
    if first == second:
        return all(row.name == other.name for row, other in zip(repeat, following, strict=False))
    block = re.compile(rf"{re.escape(range_label(first, second, '{}'))}(?!\d)")
    inside = sum(bool(block.match(row.name)) for row in repeat)
    above = rows[run.start - 1].name if run.start else ""
    return 2 * inside > run.period and not block.match(above)


def _steps(name: str, following: str) -> tuple[int, ...] | None:
    """Return the increase of each number; None if one is other than 0 or 1."""
    pairs = zip(_NUMBER.findall(name), _NUMBER.findall(following), strict=True)
    steps = tuple(int(after) - int(before) for before, after in pairs)
    return steps if set(steps) <= {0, 1} else None


def ranged(first: str, last: str, text: str = "{}–{}") -> str:
    """Return a name with a range for each number that differs: ``blocks.0–11.norm1:in``."""
    return "".join(
        one if one == other else text.format(one, other)
        for one, other in zip(_NUMBER.split(first), _NUMBER.split(last), strict=True)
    )


def starred(first: str, last: str) -> str:
    """Return a name with ``*`` for each number that differs: ``blocks.*.norm1:in``."""
    return ranged(first, last, "*")


def range_label(first: str, last: str, text: str = "{}–{}") -> str:
    """Return a name up to the number that differs, as a range: ``blocks.0–11``."""
    found = ""
    for one, other in zip(_NUMBER.split(first), _NUMBER.split(last), strict=True):
        if one != other:
            return found + text.format(one, other)
        found += one
    return found
