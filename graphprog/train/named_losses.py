"""Losses by name, as functions of one output and its labels to a mean loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

NamedLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of logits [B, K, ...] and labels int64 [B, ...].

    It is computed in at least float32; labels of -100 do not count.
    """
    return functional.cross_entropy(_wide(logits), labels)


def mse(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference of outputs and labels of the same shape."""
    outputs = _wide(outputs)
    return functional.mse_loss(outputs, like(labels, outputs))


def l1(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute difference of outputs and labels of the same shape."""
    outputs = _wide(outputs)
    return functional.l1_loss(outputs, like(labels, outputs))


def binary_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean binary cross-entropy of logits and labels in [0, 1] of the same shape."""
    logits = _wide(logits)
    return functional.binary_cross_entropy_with_logits(logits, like(labels, logits))


LOSSES: dict[str, NamedLoss] = {
    "cross_entropy": cross_entropy,
    "mse": mse,
    "l1": l1,
    "binary_cross_entropy": binary_cross_entropy,
}


def like(labels: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """Return labels in dtype and shape of the outputs: [B] serves [B, 1], and the reverse."""
    return labels.to(outputs.dtype).view_as(outputs)


def _wide(outputs: torch.Tensor) -> torch.Tensor:
    return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs
