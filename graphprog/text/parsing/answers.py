"""Parsers of generated answers: a value, or a record of why there is none."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from graphprog.alignments.base import Alignment
from graphprog.errors import DataError
from graphprog.values.context import BuildContext


@dataclass(frozen=True)
class Unparsed:
    r"""Result of parsing a text without an answer: neither an error nor one of the labels.

    Attributes:
        text: the whole text.
        reason: why it could not be parsed.

    Example:
        >>> found = gp.Parse(r"answer is (\d+)")("I do not know.")
        >>> found.text
        'I do not know.'
    """

    text: str
    reason: str


@dataclass(frozen=True)
class AnswerParser(Alignment):
    r"""Parse an answer in generated text; as an alignment, leave the graph unchanged.

    The parser is saved with the program and applied to the text that the program generates.

    Example:
        >>> parse = gp.Parse(r"answer is (-?\d+)", type=int)
        >>> assert isinstance(parse, gp.text.AnswerParser)
        >>> parse("so the answer is 70.")
        70
    """

    @property
    def is_identity(self) -> bool:
        """True: answers are read beside the graph."""
        return True

    def build(self, context: BuildContext) -> nn.Identity:
        """A module that returns its input."""
        return nn.Identity()

    @abc.abstractmethod
    def __call__(self, text: str) -> Any:
        """Parse a text: its value, or :class:`Unparsed`. No text raises an error."""


def unparsed_share(answers: Sequence[Any]) -> float:
    r"""Share of answers, in [0, 1], that are :class:`Unparsed`.

    Raises:
        DataError: there are no answers.

    Example:
        >>> parse = gp.Parse(r"answer is (\d+)", type=int)
        >>> gp.text.unparsed_share([parse("the answer is 7"), parse("hm")])
        0.5
    """
    if not answers:
        raise DataError("there are no answers to take a share of")
    return sum(isinstance(answer, Unparsed) for answer in answers) / len(answers)
