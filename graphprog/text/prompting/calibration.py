"""Contextual calibration: divide by the predictions for content-free queries."""

from __future__ import annotations

from graphprog.errors import DataError
from graphprog.utils.arrays import Array, require_alike, require_floats, require_no_nan

CONTENT_FREE = ("N/A", "", "[MASK]")
"""Content-free texts, used in place of a query."""

_SLACK = 1e-2


def contextual_calibration(probabilities: Array, content_free: Array) -> Array:
    """Calibrate label probabilities by content-free queries (Zhao et al. 2021, arXiv:2102.09690).

    Each label's probability is divided by its mean over content-free queries, and the result is
    normalized to sum to 1. The paper takes a softmax instead of normalizing: the best label is the
    same, and here calibrating by a uniform prior changes nothing.

    Args:
        probabilities: of L labels [..., L], non-negative; they need not sum to 1, since other
            words have a probability too.
        content_free: of the same labels in the same prompt, for M content-free queries [M, L], or
            for one [L]. Each row is normalized to sum to 1 before the mean.

    Returns:
        Probabilities [..., L] that sum to 1, as a NumPy array or PyTorch tensor like the input, on
        the same device.

    Raises:
        DataError: arrays that are not floating point or mix NumPy and PyTorch, entries outside
            [0, 1], mismatched numbers of labels, or a row or a content-free label of probability 0.

    Example:
        >>> found, without = torch.tensor([0.6, 0.4]), torch.tensor([0.75, 0.25])
        >>> gp.text.contextual_calibration(found, without)  # "yes" was likelier without any content
        tensor([0.3333, 0.6667])
    """
    _check(probabilities, content_free)
    labels = probabilities.shape[-1]
    prior = _scaled(content_free.reshape(-1, labels), "content_free").mean(0)
    if bool((prior == 0).any()):
        label = int((prior == 0).nonzero()[0][0])
        raise DataError(
            f"label {label} has probability 0 for content-free queries, which cannot be a divisor",
            ["choose another word for the label", "give float32 probabilities"],
        )
    # relative to the smallest, so that no quotient overflows half precision
    return _scaled(probabilities * (prior.min() / prior), "probabilities")


def _scaled(values: Array, name: str) -> Array:
    total = values.sum(-1)[..., None]
    if bool((total == 0).any()):
        raise DataError(f"a row of {name} is 0 for all labels, so it cannot be normalized")
    scaled: Array = values / total
    return scaled


def _check(probabilities: Array, content_free: Array) -> None:
    require_floats("probabilities", probabilities)
    require_floats("content_free", content_free)
    require_no_nan("probabilities", probabilities)
    require_no_nan("content_free", content_free)
    require_alike("probabilities", probabilities, "content_free", content_free)
    for name, values in (("probabilities", probabilities), ("content_free", content_free)):
        if values.ndim == 0 or bool(((values < 0) | (values > 1 + _SLACK)).any()):
            raise DataError(
                f"{name} must be probabilities [..., L] within [0, 1]",
                ["give logits.softmax(-1)", "give log_probabilities.exp()"],
            )
    labels = probabilities.shape[-1]
    if content_free.ndim > 2 or content_free.shape[-1] != labels or 0 in content_free.shape:
        raise DataError(
            f"content_free has shape {list(content_free.shape)} but must be [M, {labels}], since "
            f"probabilities have {labels} labels"
        )
