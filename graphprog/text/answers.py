"""What reading a text gives: a value, or the record that there was none."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphprog.errors import DataError
from graphprog.spec import Spec


@dataclass(frozen=True)
class Unparsed:
    """The answer that a text does not give: neither an error nor one of the labels.

    Attributes:
        text: the whole text.
        reason: why nothing was read from it.
    """

    text: str
    reason: str


class AnswerParser(Spec, abc.ABC):
    """Reads an answer from generated text."""

    @abc.abstractmethod
    def __call__(self, text: str) -> Any:
        """The value that a text gives, or :class:`Unparsed`; no text raises an error."""


def unparsed_share(answers: Sequence[Any]) -> float:
    """Share of answers, in [0, 1], that are :class:`Unparsed`.

    Raises:
        DataError: there are no answers.
    """
    if not answers:
        raise DataError("there are no answers to take a share of")
    return sum(isinstance(answer, Unparsed) for answer in answers) / len(answers)
