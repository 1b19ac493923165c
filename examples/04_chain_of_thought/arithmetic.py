"""Calculations of several operations, answered at once or step by step."""

from __future__ import annotations

import dataclasses
import random
import zlib
from collections.abc import Iterator

import graphprog as gp

HIGHEST = 49
LENGTHS = (2, 3, 4, 5, 6, 7)
"""Numbers of operations in training."""
LONGER = (8, 9)
"""More of them than in any training."""

TEMPLATE = gp.Template("Q: {question}. A: {answer}")
SEPARATOR = "\n"
TRIGGER = "Let's think step by step."
ANSWER = r"answer is (-?\d+)"


@dataclasses.dataclass(frozen=True)
class Problem:
    """A calculation from left to right.

    Attributes:
        start: the first number.
        operations: what is done to it, and with which number.
    """

    start: int
    operations: tuple[tuple[str, int], ...]

    @property
    def question(self) -> str:
        """``Start with 7, plus 5, times 2, minus 9``."""
        return ", ".join([f"Start with {self.start}", *(f"{w} {n}" for w, n in self.operations)])

    @property
    def totals(self) -> list[int]:
        """The first number, and what every operation leaves."""
        found = [self.start]
        for word, number in self.operations:
            found.append(applied(found[-1], word, number))
        return found

    @property
    def result(self) -> int:
        """The right answer."""
        return self.totals[-1]

    @property
    def direct(self) -> str:
        """The answer alone."""
        return f"The answer is {self.result}."

    @property
    def worked(self) -> str:
        """The answer behind its steps, one for each operation."""
        totals = self.totals
        steps = (
            f"{before} {word} {number} is {after}."
            for before, (word, number), after in zip(
                totals, self.operations, totals[1:], strict=False
            )
        )
        return " ".join([TRIGGER, *steps, self.direct])

    @property
    def held_out(self) -> bool:
        """Whether it belongs to the test: one in eight, scattered evenly."""
        return zlib.crc32(self.question.encode()) % 8 == 0

    def example(self, steps: bool) -> dict[str, str]:
        """The fields of the template."""
        return {"question": self.question, "answer": self.worked if steps else self.direct}


def applied(total: int, word: str, number: int) -> int:
    """What an operation leaves."""
    return {"plus": total + number, "minus": total - number, "times": total * number}[word]


def problem(generator: random.Random, length: int) -> Problem:
    """A problem of so many operations, none of which leaves less than 0 or over ``HIGHEST``."""
    start = total = generator.randint(1, 9)
    operations: list[tuple[str, int]] = []
    while len(operations) < length:
        word = generator.choice(("plus", "minus", "times"))
        number = generator.randint(2, 9)
        if 0 <= (after := applied(total, word, number)) <= HIGHEST:
            operations.append((word, number))
            total = after
    return Problem(start, tuple(operations))


def problems(generator: random.Random, length: int | None, held_out: bool) -> Iterator[Problem]:
    """Problems of so many operations, or of any number, for training or the test; without end."""
    while True:
        found = problem(generator, generator.choice(LENGTHS) if length is None else length)
        if found.held_out == held_out:
            yield found


def demonstrations(shown: list[Problem], steps: bool) -> gp.Demonstrations:
    """Problems with their answers, worked step by step or not."""
    return gp.Demonstrations([one.example(steps) for one in shown], TEMPLATE, SEPARATOR)
