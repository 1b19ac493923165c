"""Where a run stands between two epochs."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from graphprog.train.history import EpochRecord

ProgramState = dict[str, torch.Tensor]


@dataclass
class RunState:
    """Everything that is known between two epochs, besides the tensors in use.

    Attributes:
        records: of the finished epochs.
        best: program of the best epoch, with the mapping it was measured with; None before.
        best_epoch: its number, from 1; 0 before.
        counts: of the last epoch's own outputs, float64 [K_S, K_T], if they were collected.
        notes: for the history.
        stopped: why the run ends early; empty where it does not.
        seconds: spent so far.
        finished: whether the run is over.
    """

    records: list[EpochRecord] = field(default_factory=list)
    best: ProgramState | None = None
    best_epoch: int = 0
    counts: torch.Tensor | None = None
    notes: list[str] = field(default_factory=list)
    stopped: str = ""
    seconds: float = 0.0
    finished: bool = False

    def add(self, record: EpochRecord, program: ProgramState, patience: int | None) -> None:
        """Take in a finished epoch and the program after it."""
        self.records.append(record)
        self.seconds += record.seconds
        if self.best_epoch == 0 or _merit(record) > _merit(self.records[self.best_epoch - 1]):
            self.best, self.best_epoch = program, record.epoch
        waited = record.epoch - self.best_epoch
        if patience is not None and waited >= patience:
            self.stopped = f"no better validation accuracy for {waited} epochs"


def _merit(record: EpochRecord) -> tuple[float, float]:
    """What makes an epoch better than an earlier one; without validation, being later does."""
    if record.validation_accuracy is None or record.validation_loss is None:
        return float(record.epoch), 0.0
    return record.validation_accuracy, -record.validation_loss
