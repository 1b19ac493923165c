"""Score answers by the log-probabilities of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from graphprog.errors import DataError
from graphprog.spec.checks import require_texts
from graphprog.utils.arrays import Array, require_alike, require_floats, require_no_nan

_SLACK = 1e-2


def log_probability(tokens: Array, mask: Array) -> Array:
    """Log-probability of each answer: the sum over its tokens (Brown et al., NeurIPS 2020).

    Args:
        tokens: log-probability [..., T] of each token given those before it.
        mask: whether a token belongs to the answer, bool [..., T], of the same shape; values at
            other positions are ignored.

    Returns:
        Scores [...]: natural logarithms, minus infinity for an impossible answer.

    Raises:
        DataError: mismatched shapes or dtypes, an answer without tokens, or a
            log-probability above 0.

    Example:
        >>> tokens, mask = torch.tensor([[-0.5, -1.0, -9.0]]), torch.tensor([[True, True, False]])
        >>> gp.text.log_probability(tokens, mask)
        tensor([-1.5000])
    """
    _check(tokens, mask)
    total: Array = _zeroed(tokens, mask).sum(-1)
    return total


def per_token(tokens: Array, mask: Array) -> Array:
    """Mean log-probability over an answer's tokens, which does not penalize long answers.

    Arguments and errors are those of :func:`log_probability`; returns scores [...].

    Example:
        >>> tokens, mask = torch.tensor([[-0.5, -1.0, -9.0]]), torch.tensor([[True, True, False]])
        >>> gp.text.per_token(tokens, mask)
        tensor([-0.7500])
    """
    mean: Array = _divided(log_probability(tokens, mask), mask.sum(-1))
    return mean


def per_byte(tokens: Array, mask: Array, answers: Sequence[str]) -> Array:
    """Log-probability per byte of an answer, which is comparable between tokenizers.

    Args:
        tokens: as :func:`log_probability`, [N, T] for N answers.
        mask: likewise.
        answers: the N scored texts, with their leading space if it is scored.

    Returns:
        Scores [N] in nats per byte of UTF-8.

    Raises:
        DataError: as :func:`log_probability`; a wrong number of answers; an empty answer.

    Example:
        >>> tokens, mask = torch.tensor([[-0.5, -1.0]]), torch.tensor([[True, True]])
        >>> gp.text.per_byte(tokens, mask, ["yes"])
        tensor([-0.5000])
    """
    require_texts("", "answers", answers, DataError)
    scores = log_probability(tokens, mask)
    if scores.ndim != 1 or len(scores) != len(answers):
        raise DataError(
            f"{len(answers)} answers do not fit log-probabilities of shape {list(tokens.shape)}; "
            f"[{len(answers)}, T] is needed"
        )
    lengths = [len(answer.encode()) for answer in answers]
    if 0 in lengths:
        raise DataError(f"answer {lengths.index(0)} is empty")
    mean: Array = _divided(scores, lengths)
    return mean


def relative_to_prior(scores: Array, prior: Array) -> Array:
    """Pointwise mutual information: how much a query raises the score of an answer.

    The log-probability of an answer after the query, minus that after a content-free text such as
    ``Answer:`` (Holtzman et al., EMNLP 2021, arXiv:2104.08315).

    Args:
        scores: log-probabilities [..., A] of A answers after queries.
        prior: log-probabilities [A] of the same answers after the content-free text.

    Returns:
        Scores [..., A]; positive where the query makes an answer likelier.

    Raises:
        DataError: mismatched shapes or dtypes, or a prior that is not finite.

    Example:
        >>> scores, prior = torch.tensor([[-1.0, -2.0]]), torch.tensor([-1.0, -3.0])
        >>> gp.text.relative_to_prior(scores, prior)
        tensor([[0., 1.]])
    """
    require_floats("scores", scores)
    require_floats("prior", prior)
    require_alike("scores", scores, "prior", prior)
    if scores.ndim == 0 or tuple(prior.shape) != (scores.shape[-1],):
        raise DataError(
            f"prior has shape {list(prior.shape)}, scores {list(scores.shape)}; the prior needs "
            "one number per answer, and answers are the last axis of the scores"
        )
    require_no_nan("scores", scores)
    require_no_nan("prior", prior)
    infinite = abs(prior) == float("inf")
    if bool(infinite.any()):
        answer = int(infinite.nonzero()[0][0])
        raise DataError(f"the prior of answer {answer} is not finite")
    gain: Array = scores - prior
    return gain


def _check(tokens: Any, mask: Any) -> None:
    require_floats("tokens", tokens)
    require_alike("tokens", tokens, "mask", mask)
    if mask.dtype not in (torch.bool, np.dtype(bool)) or mask.shape != tokens.shape:
        raise DataError(
            f"mask must be bool {list(tokens.shape)}, the shape of the log-probabilities, not "
            f"{mask.dtype} {list(mask.shape)}"
        )
    if tokens.ndim == 0 or not bool(mask.any(-1).all()):
        raise DataError("an answer has no tokens: its mask is False everywhere")
    read = _zeroed(tokens, mask)
    require_no_nan("tokens", read)
    highest = float(read.max()) if 0 not in read.shape else 0.0
    if highest > _SLACK:
        raise DataError(
            f"a log-probability is {highest:g}, but must be at most 0",
            ["give logits.log_softmax(-1)", "give probabilities.log()"],
        )


def _zeroed(tokens: Any, mask: Any) -> Any:
    # not a product: 0 times minus infinity is NaN
    if isinstance(tokens, torch.Tensor):
        return torch.where(mask, tokens, 0.0)
    return np.where(mask, tokens, np.zeros((), tokens.dtype))


def _divided(scores: Any, lengths: Any) -> Any:
    if isinstance(scores, torch.Tensor):
        return scores / torch.as_tensor(lengths, dtype=scores.dtype, device=scores.device)
    return scores / np.asarray(lengths, dtype=scores.dtype)
