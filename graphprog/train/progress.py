"""Progress display of a training run."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from graphprog.train.history import EpochRecord

_SECONDS = 0.2


class Bar:
    """A progress bar on a terminal; elsewhere one line per epoch if requested, else nothing.

    It reads the loss only a few times per second, because reading waits for the device.
    """

    def __init__(self, wanted: bool | None, epochs: int, steps: int | None) -> None:
        self.console = Console(stderr=True)
        drawable = self.console.is_terminal or self.console.is_jupyter
        self.lines = bool(wanted) and not drawable
        self.epochs = epochs
        self.steps = steps
        self.bar: Progress | None = None
        if drawable and wanted is not False:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[loss]}{task.fields[score]}"),
                console=self.console,
            )
        self.task = TaskID(0)
        self.done = 0
        self.drawn = 0.0

    def __enter__(self) -> Self:
        if self.bar is not None:
            total = None if self.steps is None else self.steps * self.epochs
            self.task = self.bar.add_task("", total=total, loss="", score="")
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def begin(self, epoch: int) -> None:
        """Show the beginning of an epoch, counted from 0."""
        self.done = epoch * (self.steps or 0) if self.steps else self.done
        if self.bar is not None:
            total = None if self.steps is None else self.steps * self.epochs
            text = f"epoch {epoch + 1}/{self.epochs}"
            self.bar.update(self.task, completed=self.done, total=total, description=text)

    def keep(self, done: int, steps: int | None) -> None:
        """Show the progress of the pass that computes what is kept of each sample."""
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=steps, description="first pass")
        elif self.lines and done == steps:
            self.console.print(f"first pass: {steps} batches are computed and kept")

    def step(self, loss: torch.Tensor) -> None:
        """Count a step."""
        self.done += 1
        now = time.monotonic()
        if self.bar is None or now - self.drawn < _SECONDS:
            return
        self.drawn = now
        self.bar.update(self.task, completed=self.done, loss=f"loss {float(loss):.4f}")

    def end(self, record: EpochRecord) -> None:
        """Show the results of an epoch."""
        text = _result(record)
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, score=f"  {text}")
        elif self.lines:
            self.console.print(
                f"epoch {record.epoch}/{self.epochs}  loss {record.train_loss:.4f}  {text}  "
                f"{record.seconds:.1f} s",
                highlight=False,
            )


def _result(record: EpochRecord) -> str:
    """Return the accuracy of an epoch as text, or the loss where there is none."""
    name = "training" if record.validation_loss is None else "validation"
    accuracy, loss = record.train_accuracy, record.train_loss
    if record.validation_loss is not None:
        accuracy, loss = record.validation_accuracy, record.validation_loss
    text = f"{name} loss {loss:.4f}" if accuracy is None else f"{name} accuracy {accuracy:.2%}"
    return text + "".join(f"  {metric} {value:.4f}" for metric, value in record.metrics.items())
