"""Loss and accuracy of one pass over the data, collected without device synchronization."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from graphprog.errors import DataError
from graphprog.train.data.batches import Batch
from graphprog.train.loop.engine import Engine
from graphprog.train.objective import Score


@dataclass(frozen=True)
class Scores:
    """Mean loss, share of correct labels, and number of labels, over all processes.

    The accuracy is None if labels are not right or wrong, such as numbers.
    """

    loss: float
    accuracy: float | None
    count: int


class DivergenceError(Exception):
    """A loss or parameter is no longer finite; the message says which, and where."""


class Meter:
    """Collects loss and accuracy of the batches of one pass."""

    def __init__(self) -> None:
        self.losses: list[torch.Tensor] = []
        self.right: list[torch.Tensor] = []
        self.counted: list[torch.Tensor] = []
        self._checked = 0

    def add(self, loss: torch.Tensor, score: Score | None, batch: Batch) -> None:
        """Add a batch: its mean loss, and its number of correct labels and of labels.

        Without these numbers, the rows of the batch are counted, and the accuracy is unknown.
        """
        if batch.own:
            right, counted = score or (loss.new_tensor(torch.nan), torch.tensor(batch.own))
            self.losses.append(loss.detach())
            self.right.append(right)
            self.counted.append(counted)

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
        return Scores(loss / count, right_sum / count if known else None, int(count))
