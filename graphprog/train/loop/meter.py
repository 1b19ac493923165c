"""Loss and accuracy of one pass over the data, collected without device synchronization."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from graphprog.errors import DataError
from graphprog.train.data.batches import Batch
from graphprog.train.loop.engine import Engine
from graphprog.train.objective import Objective, Supervised


@dataclass(frozen=True)
class Scores:
    """Mean loss, share of correct labels, and number of labels, over all processes.

    The accuracy is None if labels are not right or wrong, such as numbers.

    Attributes:
        histogram: how often each class is predicted, and how often it is the label: int64 [2, K];
            None if labels are not class numbers.
        metrics: other metrics by name.
    """

    loss: float
    accuracy: float | None
    count: int
    histogram: torch.Tensor | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


class DivergenceError(Exception):
    """A loss or parameter is no longer finite; the message says which, and where."""


class Meter:
    """Collects loss and accuracy of the batches of one pass."""

    def __init__(self) -> None:
        self.losses: list[torch.Tensor] = []
        self.right: list[torch.Tensor] = []
        self.counted: list[torch.Tensor] = []
        self.histogram: torch.Tensor | None = None
        self._checked = 0

    def add(self, loss: torch.Tensor, objective: Objective, outputs: Any, batch: Batch) -> None:
        """Add a batch: its mean loss, and what its outputs score.

        Without a number of correct labels, the rows of the batch are counted, and the accuracy is
        unknown.
        """
        if not batch.own:
            return
        score = objective.score(outputs, batch.labels)
        right, counted = score or (loss.new_tensor(torch.nan), torch.tensor(batch.own))
        self.losses.append(loss.detach())
        self.right.append(right)
        self.counted.append(counted)
        if isinstance(objective, Supervised):
            counts = objective.histogram(outputs, batch.labels)
            if counts is not None:
                self.histogram = counts if self.histogram is None else self.histogram + counts

    def first_bad(self) -> int | None:
        """Return the number of the first unchecked batch whose loss is not finite."""
        recent = self.losses[self._checked :]
        if not recent:
            return None
        wrong = (~torch.stack(recent).isfinite()).nonzero()
        start, self._checked = self._checked, len(self.losses)
        return start + int(wrong[0]) if len(wrong) else None

    def scores(self, engine: Engine) -> Scores:
        """Return the scores over all processes."""
        sums = [0.0, 0.0, 0.0]
        if self.losses:
            counted = torch.stack(self.counted).cpu().double()
            losses = torch.stack(self.losses).cpu().double()
            right = torch.stack([part.double() for part in self.right]).sum()
            sums = [float(losses @ counted), float(right), float(counted.sum())]
        loss, right_sum, count = engine.total(torch.tensor(sums, dtype=torch.float64)).tolist()
        if count == 0:
            raise DataError("there is nothing to score: every label of every example is ignored")
        known = not math.isnan(right_sum)
        histogram = None if self.histogram is None else self.histogram.cpu()
        return Scores(loss / count, right_sum / count if known else None, int(count), histogram)
