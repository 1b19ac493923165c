"""Sums of several numbers, answered at once or step by step."""

from __future__ import annotations

import dataclasses
import itertools
import random
import zlib
from collections.abc import Iterator

import graphprog as gp

LARGEST = 20
TERMS = (3, 4, 5, 6, 7, 8)

TEMPLATE = gp.Template("Q: {question} = A: {answer}")
SEPARATOR = "\n"
TRIGGER = "Let's think step by step."
ANSWER = r"answer is (-?\d+)"


@dataclasses.dataclass(frozen=True)
class Problem:
    """A sum."""

    terms: tuple[int, ...]

    @property
    def question(self) -> str:
        """``7 + 2 + 5``."""
        return " + ".join(map(str, self.terms))

    @property
    def result(self) -> int:
        """The right answer."""
        return sum(self.terms)

    @property
    def direct(self) -> str:
        """The answer alone."""
        return f"The answer is {self.result}."

    @property
    def worked(self) -> str:
        """The answer behind its steps, each of which adds one term."""
        totals = list(itertools.accumulate(self.terms))
        steps = (
            f"{before} + {term} = {after}."
            for before, term, after in zip(totals, self.terms[1:], totals[1:], strict=False)
        )
        return " ".join([TRIGGER, *steps, self.direct])

    @property
    def held_out(self) -> bool:
        """Whether it belongs to the test: one in eight, scattered evenly."""
        return zlib.crc32(self.question.encode()) % 8 == 0

    def example(self, steps: bool) -> dict[str, str]:
        """The fields of the template."""
        return {"question": self.question, "answer": self.worked if steps else self.direct}


def problems(generator: random.Random, count: int | None, held_out: bool) -> Iterator[Problem]:
    """Problems of so many terms, or of any number, for training or for the test; without end."""
    while True:
        terms = generator.choice(TERMS) if count is None else count
        problem = Problem(tuple(generator.randint(1, LARGEST) for _ in range(terms)))
        if problem.held_out == held_out:
            yield problem


def demonstrations(shown: list[Problem], steps: bool) -> gp.Demonstrations:
    """Problems with their answers, worked step by step or not."""
    return gp.Demonstrations([one.example(steps) for one in shown], TEMPLATE, SEPARATOR)
