"""Loss and accuracy of a reading of the data, gathered without waiting for the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from graphprog.train.batches import Batch
from graphprog.train.engine import Engine


@dataclass(frozen=True)
class Scores:
    """Mean loss, share of right predictions, and number of examples, over all processes."""

    loss: float
    accuracy: float
    count: int


class DivergenceError(Exception):
    """Numbers stopped being finite; the text says which and where."""


class Meter:
    """Collects the batches of one reading."""

    def __init__(self) -> None:
        self.losses: list[torch.Tensor] = []
        self.right: list[torch.Tensor] = []
        self.rows: list[int] = []
        self._checked = 0

    def add(self, loss: torch.Tensor, predicted: torch.Tensor, batch: Batch) -> None:
        """Add a batch: its mean loss, and its predicted classes int64 [B]."""
        if batch.own:
            self.losses.append(loss.detach())
            self.right.append((predicted == batch.labels).sum())
            self.rows.append(batch.own)

    def first_bad(self) -> int | None:
        """Number of the first batch, of those not looked at yet, whose loss is not finite."""
        recent = self.losses[self._checked :]
        if not recent:
            return None
        wrong = (~torch.stack(recent).isfinite()).nonzero()
        start, self._checked = self._checked, len(self.losses)
        return start + int(wrong[0]) if len(wrong) else None

    def scores(self, engine: Engine) -> Scores:
        """Scores over all processes."""
        sums = [0.0, 0.0, 0.0]
        if self.losses:
            rows = torch.tensor(self.rows, dtype=torch.float64)
            losses = torch.stack(self.losses).cpu().double()
            right = int(torch.stack(self.right).sum())
            sums = [float(losses @ rows), float(right), float(rows.sum())]
        loss, right_sum, count = engine.total(torch.tensor(sums, dtype=torch.float64)).tolist()
        return Scores(loss / count, right_sum / count, int(count))
