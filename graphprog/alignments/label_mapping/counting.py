"""Count pairs of predicted source class and target class, for statistical alignments.

Counts are additive: those of parts of a data set, in any order and from any number of processes,
sum to those of the whole data set, bit for bit.
"""

from __future__ import annotations

import torch

from graphprog.errors import DataError

# Probabilities are counted in steps of 2**-30. Sums of up to 2**23 of them are then exact in
# float64, so soft counts do not depend on the order either.
_STEP = 2.0**-30


@torch.no_grad()
def hard_counts(values: torch.Tensor, labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Count how often source class s is predicted for examples of target class t.

    Args:
        values: source logits, floating point [B, K_S]; the prediction is their argmax, at ties the
            lowest index.
        labels: target classes, int64 [B], each in [0, K_T).
        classes: number of target classes K_T.

    Returns:
        float64 [K_S, K_T] on the device of ``values``, or on the CPU if the device has no float64.

    Raises:
        DataError: shapes or dtypes other than these, labels out of range, values not finite.
    """
    check_examples(values, labels, classes)
    predicted = values.argmax(1, keepdim=True)
    return _accumulate(predicted, torch.ones_like(predicted), labels, values.shape[1], classes)


@torch.no_grad()
def soft_counts(values: torch.Tensor, labels: torch.Tensor, classes: int, k: int) -> torch.Tensor:
    """Sum the probability of s over examples of class t that have s among their k likeliest.

    Probabilities are the softmax over all source classes, in float32 or better, rounded to
    multiples of 2**-30.

    Args:
        values: source logits, floating point [B, K_S].
        labels: target classes, int64 [B], each in [0, K_T).
        classes: number of target classes K_T.
        k: source classes counted for every example, in [1, K_S].

    Returns:
        As :func:`hard_counts`.

    Raises:
        DataError: as :func:`hard_counts`.
    """
    check_examples(values, labels, classes)
    precise = values.to(torch.promote_types(values.dtype, torch.float32))
    top = precise.softmax(1).topk(k, dim=1)
    return _accumulate(top.indices, top.values, labels, values.shape[1], classes)


def check_examples(values: torch.Tensor, labels: torch.Tensor, classes: int) -> None:
    """Check values and labels before counting.

    Raises:
        DataError: shapes or dtypes other than floating point [B, K_S] and int64 [B], labels out
            of [0, K_T), an example whose largest value is not finite.
    """
    if values.ndim != 2 or not values.is_floating_point():
        raise DataError(
            f"counting needs floating-point values [batch, source classes], "
            f"not {values.dtype} {list(values.shape)}"
        )
    if labels.dtype != torch.int64 or labels.shape != values.shape[:1]:
        raise DataError(
            f"counting needs int64 labels [{values.shape[0]}], one for every example, "
            f"not {labels.dtype} {list(labels.shape)}",
            ["call labels.long()", "call labels.argmax(1) if they are one-hot"],
        )
    outside = (labels < 0) | (labels >= classes)
    if bool(outside.any()):
        first = int(outside.nonzero()[0])
        raise DataError(
            f"label {int(labels[first])} of example {first} is outside 0 to {classes - 1}",
            [f"increase classes={classes} of the alignment", "number the labels from 0"],
        )
    broken = ~values.amax(1).isfinite()
    if bool(broken.any()):
        raise DataError(
            f"the source's values for example {int(broken.nonzero()[0])} are not finite",
            ["check the data for NaN", "lower the learning rate of the program"],
        )


def _accumulate(
    sources: torch.Tensor, amounts: torch.Tensor, labels: torch.Tensor, rows: int, columns: int
) -> torch.Tensor:
    """Add amounts [B, k] at (sources [B, k], labels [B]) into float64 [rows, columns]."""
    device = torch.device("cpu") if sources.device.type == "mps" else sources.device
    cells = sources.to(device) * columns + labels.to(device).unsqueeze(1)
    steps = (amounts.to(device).to(torch.float64) / _STEP).round() * _STEP
    counts = torch.zeros(rows * columns, dtype=torch.float64, device=device)
    counts.index_add_(0, cells.reshape(-1), steps.reshape(-1))
    return counts.reshape(rows, columns)
