"""What an intervention is judged by: one number for each row of the model's outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from graphprog.errors import DataError, ProgramError

Metric = Callable[[torch.Tensor], torch.Tensor] | Sequence[int]
"""A function of the logits [B, ...] that returns [B]; or two classes, right and wrong, whose
difference of logits it is, at the last position of [B, S, V]."""


def metric_of(metric: Metric) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a metric as a function that checks its result.

    Raises:
        ProgramError: it is neither a function nor two classes.
    """
    if callable(metric):
        return _Checked(metric)
    pair = list(metric) if hasattr(metric, "__len__") else []
    if len(pair) != 2 or not {type(one) for one in pair} == {int}:
        raise ProgramError(
            f"metric must be a function of the logits, or two classes, not {metric!r}",
            ["metric=(right, wrong), numbers of tokens or classes"],
        )
    right, wrong = pair
    return _Checked(lambda logits: _last(logits)[:, right] - _last(logits)[:, wrong])


def _last(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, -1] if logits.ndim == 3 else logits


class _Checked:
    def __init__(self, metric: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.metric = metric

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """Return one number a row.

        Raises:
            DataError: the metric returns something else, or fails for these logits.
        """
        try:
            found: Any = self.metric(logits)
        except IndexError as error:
            raise DataError(
                f"the metric does not fit logits of shape {list(logits.shape)}: {error}"
            ) from error
        if not isinstance(found, torch.Tensor) or found.shape != (len(logits),):
            shape = list(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise DataError(
                f"the metric returned {shape} for logits {list(logits.shape)}; [{len(logits)}], "
                "one number for each row, is needed"
            )
        return found
