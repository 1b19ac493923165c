"""Contextual calibration: what a model says without content, divided out."""

from __future__ import annotations

from graphprog.errors import DataError
from graphprog.utils.arrays import Array, require_alike, require_floats, require_no_nan

CONTENT_FREE = ("N/A", "", "[MASK]")
"""Texts without content, to put in place of a query."""

_SLACK = 1e-2


def contextual_calibration(probabilities: Array, content_free: Array) -> Array:
    """Label probabilities relative to those without content (Zhao et al. 2021, arXiv:2102.09690).

    Each label is divided by its mean probability over content-free inputs, and the result is
    scaled to sum to 1. The paper takes a softmax instead of the scaling: the best label is the
    same, and here calibrating by a uniform prior changes nothing.

    Args:
        probabilities: of L labels [..., L], non-negative; they need not sum to 1, since a model
            also gives other words a share.
        content_free: of the same labels in the same prompt, for M content-free queries [M, L], or
            for one [L]. Each row is scaled to sum to 1 before the mean.

    Returns:
        Probabilities [..., L] that sum to 1, of NumPy or PyTorch as given, on the same device.

    Raises:
        DataError: no floating-point arrays of one kind, negative or infinite entries, other
            numbers of labels, or a row or a content-free label of probability 0.

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
            f"label {label} has probability 0 without content, so nothing can be divided by it",
            ["choose another word for the label", "give float32 probabilities"],
        )
    # relative to the smallest, so that no quotient leaves the range of half precision
    return _scaled(probabilities * (prior.min() / prior), "probabilities")


def _scaled(values: Array, name: str) -> Array:
    total = values.sum(-1)[..., None]
    if bool((total == 0).any()):
        raise DataError(f"a row of {name} is 0 for all labels")
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
                ["softmax of logits", "exp of log-probabilities"],
            )
    labels = probabilities.shape[-1]
    if content_free.ndim > 2 or content_free.shape[-1] != labels or 0 in content_free.shape:
        raise DataError(
            f"content_free has shape {list(content_free.shape)}; [M, {labels}] is needed, as "
            f"probabilities have {labels} labels"
        )
