"""Training steps: a loss, and its gradient by what is trained."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import torch

from benchmarks.table.records import OURS

Loss = Callable[[], torch.Tensor]
Steps = dict[str, Callable[[], tuple[torch.Tensor, ...]]]


def steps(losses: Mapping[str, tuple[Loss, Sequence[torch.Tensor]]]) -> Steps:
    """Return the step of each contestant: a forward and a backward pass.

    Args:
        losses: the loss of each, and what it trains.
    """
    return {name: functools.partial(step, *pair) for name, pair in losses.items()}


def step(loss: Loss, trained: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Return the gradients of a loss."""
    return torch.autograd.grad(loss(), list(trained))


def agreement(calls: Steps) -> str:
    """Run every step, and say how far the gradients of the first trained tensor are apart.

    Raises:
        RuntimeError: so far that they do not do the same work.
    """
    ours = calls[OURS]()[0]
    (other,) = (call()[0] for name, call in calls.items() if name != OURS)
    return f"gradients {within(ours, other)}"


def within(ours: torch.Tensor, other: torch.Tensor) -> str:
    """Say how far two results are apart.

    Raises:
        RuntimeError: more than a hundredth of the largest, which is no rounding.
    """
    gap = float((ours - other).abs().max() / other.abs().max())
    if not gap < 1e-2:
        raise RuntimeError(f"contestants differ by {gap:.1e} of the largest: not the same work")
    return f"within {gap:.0e} of the largest"
