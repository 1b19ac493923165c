"""Progress of a run between two epochs."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from graphprog.train.history import EpochRecord
from graphprog.train.monitor import Monitor

ProgramState = dict[str, torch.Tensor]


@dataclass
class RunState:
    """The state of a run between two epochs, without the current tensors.

    Attributes:
        records: records of the finished epochs.
        best: program of the best epoch, with the mapping it was measured with; None before the
            first.
        best_epoch: its number, from 1; 0 before the first.
        collapsed: note of the best epoch, if its predictions are all of one class.
        counts: counts of the last epoch's outputs, float64 [K_S, K_T], if collected.
        notes: notes for the history.
        stopped: why the run ends early; empty if it does not.
        seconds: duration so far.
    """

    records: list[EpochRecord] = field(default_factory=list)
    best: ProgramState | None = None
    best_epoch: int = 0
    collapsed: str = ""
    counts: torch.Tensor | None = None
    notes: list[str] = field(default_factory=list)
    stopped: str = ""
    seconds: float = 0.0

    def add(
        self,
        record: EpochRecord,
        program: ProgramState,
        patience: int | None,
        monitor: Monitor | None = None,
        collapsed: str = "",
    ) -> None:
        """Add a finished epoch, and keep its program if it is the best.

        Args:
            record: its metrics.
            program: its program.
            patience: end the run after so many epochs without a better one.
            monitor: compares epochs; by default by accuracy.
            collapsed: note about its predictions.
        """
        merit = (monitor or Monitor()).merit
        self.records.append(record)
        self.seconds += record.seconds
        if self.best_epoch == 0 or merit(record) > merit(self.records[self.best_epoch - 1]):
            self.best, self.best_epoch, self.collapsed = program, record.epoch, collapsed
        waited = record.epoch - self.best_epoch
        if patience is not None and waited >= patience:
            measured = (monitor or Monitor()).called(record)
            self.stopped = f"no better validation {measured} for {waited} epochs"
