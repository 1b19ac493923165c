"""Answer scores and calibration against their formulas, in NumPy and PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphprog.errors import DataError
from graphprog.text import (
    CONTENT_FREE,
    contextual_calibration,
    log_probability,
    per_byte,
    per_token,
    relative_to_prior,
)

KINDS: list[Callable[[Any], Any]] = [
    lambda values: np.array(values),
    lambda values: np.array(values, dtype=bool if isinstance(values[0][0], bool) else np.float32),
    lambda values: torch.tensor(
        values, dtype=torch.bool if values[0][0] is True else torch.float64
    ),
    torch.tensor,
]
TOKENS = [[-1.0, -2.0, -math.inf], [-3.0, math.nan, 5.0]]
MASK = [[True, True, False], [True, False, False]]


def same(found: Any, expected: Any, like: Any) -> None:
    assert type(found) is type(like)
    assert found.dtype == like.dtype
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5)


@pytest.mark.parametrize("make", KINDS)
def test_scores_follow_their_formulas(make: Callable[[Any], Any]) -> None:
    tokens, mask = make(TOKENS), make(MASK)
    same(log_probability(tokens, mask), [-3.0, -3.0], tokens)
    same(per_token(tokens, mask), [-1.5, -3.0], tokens)
    same(per_byte(tokens, mask, [" höh", "abc"]), [-0.6, -1.0], tokens)


def test_any_leading_axes() -> None:
    tokens = -torch.rand(2, 3, 4)
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    assert torch.equal(log_probability(tokens, mask), tokens.sum(-1))
    assert torch.equal(per_token(tokens, mask), tokens.mean(-1))
    assert log_probability(tokens[0, 0], mask[0, 0]).shape == ()
    assert log_probability(tokens[:0], mask[:0]).shape == (0, 3)


def test_an_impossible_token_makes_an_answer_impossible() -> None:
    tokens = np.array([[-1.0, -np.inf]])
    assert log_probability(tokens, np.array([[True, True]])) == -np.inf


def test_scores_relative_to_a_prior() -> None:
    scores = np.array([[-1.0, -4.0], [-3.0, -np.inf]])
    prior = np.array([-2.0, -3.0])
    same(relative_to_prior(scores, prior), [[1.0, -1.0], [-1.0, -np.inf]], scores)
    assert torch.equal(
        relative_to_prior(torch.from_numpy(scores), torch.from_numpy(prior)),
        torch.from_numpy(scores - prior),
    )


FULL = np.ones((1, 2), dtype=bool)
GOOD = np.array([[-1.0, -2.0]])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: log_probability(GOOD, FULL[:, :1]), "mask must be bool [1, 2]"),
        (lambda: log_probability(GOOD, FULL.astype(int)), "mask must be bool [1, 2]"),
        (lambda: log_probability(GOOD, ~FULL), "an answer has no tokens"),
        (lambda: log_probability(np.array(0.0), np.array(True)), "an answer has no tokens"),
        (lambda: log_probability(-GOOD, FULL), "a log-probability is 2, but must be at most 0"),
        (lambda: log_probability(GOOD * math.nan, FULL), "tokens has entries that are not a"),
        (lambda: log_probability(GOOD.astype(int), FULL), "tokens has dtype int64"),
        (lambda: log_probability(GOOD.tolist(), FULL), "tokens must be a NumPy array or"),
        (lambda: log_probability(GOOD, torch.from_numpy(FULL)), "tokens is a ndarray, mask a Te"),
        (lambda: per_token(GOOD, ~FULL), "an answer has no tokens"),
        (lambda: per_byte(GOOD, FULL, ["a", "b"]), "2 answers do not fit"),
        (lambda: per_byte(GOOD, FULL, [""]), "answer 0 is empty"),
        (lambda: relative_to_prior(GOOD, GOOD[0, :1]), "prior has shape [1], scores [1, 2]"),
        (lambda: relative_to_prior(GOOD, GOOD[0] * math.inf), "prior of answer 0 is not finite"),
        (lambda: relative_to_prior(GOOD, GOOD[0] * math.nan), "prior has entries that are not"),
    ],
)
def test_scores_that_are_refused(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        call()
    assert said in str(caught.value)


@pytest.mark.parametrize("make", KINDS)
def test_calibration_divides_by_what_is_said_without_content(make: Callable[[Any], Any]) -> None:
    probabilities = make([[0.3, 0.1], [0.6, 0.2], [0.1, 0.1]])
    content_free = make([[0.9, 0.3], [0.3, 0.1]])  # the same ratio twice
    found = contextual_calibration(probabilities, content_free)
    same(found, [[0.5, 0.5], [0.5, 0.5], [0.25, 0.75]], probabilities)
    same(contextual_calibration(probabilities, content_free[0]), np.asarray(found), probabilities)
    assert len(CONTENT_FREE) == 3


def test_half_precision_stays_in_range() -> None:
    probabilities = torch.tensor([0.5, 0.5], dtype=torch.float16)
    found = contextual_calibration(probabilities, torch.tensor([1.0, 6e-6]).half())
    assert torch.isfinite(found).all()
    assert found[1] > 0.99


ROWS = st.lists(st.floats(0.01, 1), min_size=3, max_size=3)


@given(row=ROWS, prior=st.lists(ROWS, min_size=1, max_size=3))
def test_calibrated_rows_are_probabilities_and_the_prior_becomes_uniform(
    row: list[float], prior: list[list[float]]
) -> None:
    found = contextual_calibration(np.array(row), np.array(prior))
    assert found.sum() == pytest.approx(1)
    mean = (np.array(prior) / np.array(prior).sum(1, keepdims=True)).mean(0)
    np.testing.assert_allclose(contextual_calibration(mean, np.array(prior)), 1 / 3)
    ratio = np.array(row) / mean
    np.testing.assert_allclose(found, ratio / ratio.sum())
    even = contextual_calibration(np.array(row), np.full((1, 3), 0.2))
    np.testing.assert_allclose(even, np.array(row) / np.sum(row))


PAIR = np.array([0.5, 0.5])


@pytest.mark.parametrize(
    ("probabilities", "content_free", "said"),
    [
        (PAIR, np.array([1.0, 0.0]), "label 1 has probability 0 for content-free"),
        (PAIR, np.array([0.0, 0.0]), "a row of content_free is 0 for all labels"),
        (PAIR * 0, PAIR, "a row of probabilities is 0 for all labels"),
        (PAIR, np.ones(3) / 3, "content_free has shape [3] but must be [M, 2]"),
        (PAIR, np.ones((0, 2)), "content_free has shape [0, 2]"),
        (-PAIR, PAIR, "probabilities must be probabilities [..., L] within [0, 1]"),
        (PAIR, PAIR * 9, "content_free must be probabilities"),
        (PAIR * math.nan, PAIR, "probabilities has entries that are not a number"),
        (PAIR, torch.tensor([0.5, 0.5]), "probabilities is a ndarray, content_free a Tensor"),
        (PAIR.astype(int), PAIR, "probabilities has dtype int64"),
        ([0.5, 0.5], PAIR, "probabilities must be a NumPy array or PyTorch tensor, not list"),
    ],
)
def test_probabilities_that_are_refused(probabilities: Any, content_free: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        contextual_calibration(probabilities, content_free)
    assert said in str(caught.value)
