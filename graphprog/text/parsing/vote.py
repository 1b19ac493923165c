"""Self-consistency: a majority vote over several sampled answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphprog.errors import DataError
from graphprog.text.parsing.answers import Unparsed
from graphprog.text.parsing.schema import json_key


@dataclass(frozen=True)
class Vote:
    """Result of a majority vote.

    Attributes:
        answer: the answer with the most votes; :class:`Unparsed` if no text had an answer.
        share: its share of the votes cast, in [0, 1]; 0 without votes.
        counts: every answer with its votes, most votes first; at ties the first seen comes first.
        unparsed: number of texts without an answer, which do not vote.

    Example:
        >>> found = gp.text.vote([70, 70, 71])
        >>> found.share > 0.6, found.counts
        (True, ((70, 2), (71, 1)))
    """

    answer: Any
    share: float
    counts: tuple[tuple[Any, int], ...]
    unparsed: int


def vote(answers: Sequence[Any]) -> Vote:
    r"""Take the majority of parsed answers (Wang et al., ICLR 2023, arXiv:2203.11171).

    ``vote([parse(generate(text)) for _ in range(k)])``, where ``generate`` samples. At a tie, the
    answer seen first wins. Numbers are compared by value (``3`` equals ``3.0``), JSON by content.

    Args:
        answers: k parsed answers, in the order they were sampled.

    Raises:
        DataError: there are no answers, or they are one text.

    Example:
        >>> parse = gp.Parse(r"answer is (\d+)", type=int)
        >>> gp.text.vote([parse("the answer is 70"), parse("answer is 70"), parse("hm")]).answer
        70
    """
    if isinstance(answers, str):
        raise DataError(f"answers must be several, not {answers!r:.60}", [f"[{answers!r:.60}]"])
    if not answers:
        raise DataError("there are no answers to vote on")
    failed = [answer for answer in answers if isinstance(answer, Unparsed)]
    votes: dict[Any, list[Any]] = {}
    for answer in answers:
        if not isinstance(answer, Unparsed):
            votes.setdefault(_key(answer), []).append(answer)
    if not votes:
        return Vote(failed[0], 0.0, (), len(failed))
    # the sort is stable, so ties stay in the order of their first vote
    ranked = sorted(votes.values(), key=len, reverse=True)
    counts = tuple((same[0], len(same)) for same in ranked)
    best, most = counts[0]
    return Vote(best, most / (len(answers) - len(failed)), counts, len(failed))


def _key(answer: Any) -> Any:
    if isinstance(answer, dict | list):
        return "json", json_key(answer)
    return answer
