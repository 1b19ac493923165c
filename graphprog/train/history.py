"""The history of a training run: metrics per epoch, as numbers and curves."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphprog.errors import FileError
from graphprog.utils.html import preformatted, table
from graphprog.utils.plots.figures import figure, keep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN_EPOCHS = 12


@dataclasses.dataclass(frozen=True)
class EpochRecord:
    """Metrics of one epoch.

    Attributes:
        epoch: number, from 1.
        train_loss: mean over the epoch, while the program was training.
        train_accuracy: likewise; None if labels are not right or wrong, such as numbers.
        validation_loss: after the epoch; None without a validation split.
        validation_accuracy: likewise.
        lr: learning rate of the epoch's first step (of the first parameter group).
        seconds: duration of the epoch with refresh and validation; not compared.
        mapping: report of the refresh before the epoch; empty if there was none.
        mapping_changes: target classes whose top source class that refresh changed.
        metrics: metrics of the validation split that were asked for, by name.
    """

    epoch: int
    train_loss: float
    train_accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    lr: float
    seconds: float = dataclasses.field(compare=False)
    mapping: str = ""
    mapping_changes: int | None = None
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class History:
    """Metrics of a training run.

    Attributes:
        records: the finished epochs.
        best_epoch: number of the epoch whose program the task holds: the one with the best
            validation accuracy, or what ``monitor`` names, then the lower validation loss, then
            the earlier one; the last epoch without validation.
        stopped: why the run ended before its last epoch; empty if it did not.
        notes: what a user should know, such as classes without examples.
        seconds: duration of the run, over all resumptions; not compared.
        settings: hyper-parameters; functions by name.
        examples: number of examples by split, if known.

    Example:
        >>> history = gp.fit(task, (images, labels), (images, labels), epochs=2)
        >>> [record.epoch for record in history.records], history.best_epoch in (1, 2)
        ([1, 2], True)
    """

    records: tuple[EpochRecord, ...]
    best_epoch: int
    stopped: str
    notes: tuple[str, ...]
    seconds: float = dataclasses.field(compare=False)
    settings: Mapping[str, Any]
    examples: Mapping[str, int | None]

    @property
    def best(self) -> EpochRecord:
        """Return the record of the best epoch."""
        return self.records[self.best_epoch - 1]

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Plot loss and accuracy by epoch, with the best epoch marked.

        Args:
            path: file to write the figure to, if any; the suffix sets the format.
        """
        records, best = self.records, self.best
        measured = [
            100 * record.train_accuracy for record in records if record.train_accuracy is not None
        ]
        drawing, axes = figure(2 if measured else 1, 5.2, 3.8)
        self._draw(axes[0], [r.train_loss for r in records], [r.validation_loss for r in records])
        axes[0].set_ylabel("loss")
        if measured:
            held_out = [record.validation_accuracy for record in records]
            percent = [None if value is None else 100 * value for value in held_out]
            self._draw(axes[1], measured, percent)
            axes[1].set_ylabel("accuracy in %")
        shown = best.validation_accuracy
        score = "" if shown is None else f": {shown:.1%} validation accuracy"
        drawing.suptitle(f"program kept: epoch {best.epoch}{score}", fontsize=11)
        return keep(drawing, path)

    def _draw(self, axis: Axes, train: list[float], held_out: list[float | None]) -> None:
        from matplotlib.ticker import MaxNLocator

        epochs = [record.epoch for record in self.records]
        style = "o" if len(epochs) == 1 else "o-" if len(epochs) <= 30 else "-"
        axis.plot(epochs, train, style, markersize=3, color="tab:blue", label="training")
        best = self.best_epoch
        marked = train[best - 1]
        values = [value for value in held_out if value is not None]
        if len(values) == len(epochs):
            axis.plot(epochs, values, style, markersize=3, color="tab:orange", label="validation")
            marked = values[best - 1]
        axis.axvline(best, color="gray", linewidth=0.8, linestyle="--")
        axis.plot(best, marked, "*", markersize=12, color="tab:red", label="program kept")
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=9)

    def to_json(self) -> dict[str, Any]:
        """Return the history as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> History:
        """Inverse of :meth:`to_json`.

        Raises:
            FileError: the fields are not those of a history.
        """
        try:
            fields = dict(value)
            fields["records"] = tuple(EpochRecord(**record) for record in fields["records"])
            fields["notes"] = tuple(fields["notes"])
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"training history: {error}") from error

    def summary(self) -> dict[str, Any]:
        """Return the key numbers that are saved with a program, as JSON values."""
        best = self.best
        found = {
            "epochs": len(self.records),
            "best_epoch": self.best_epoch,
            "train_loss": best.train_loss,
            "train_accuracy": best.train_accuracy,
            "validation_loss": best.validation_loss,
            "validation_accuracy": best.validation_accuracy,
            **({"metrics": dict(best.metrics)} if best.metrics else {}),
            "examples": dict(self.examples),
            "settings": dict(self.settings),
            "notes": list(self.notes),
        }
        return {**found, "stopped": self.stopped} if self.stopped else found

    def _repr_html_(self) -> str:
        """Return the epochs as a table, for notebooks."""
        names = list(self.best.metrics)
        header = ["epoch", "train loss", "accuracy", "validation loss", "accuracy", *names, "lr"]
        rows = [
            [
                f"{record.epoch}{'*' if record.epoch == self.best_epoch else ''}",
                f"{record.train_loss:.4f}",
                _number(record.train_accuracy, ".2%").strip(),
                _number(record.validation_loss, ".4f").strip(),
                _number(record.validation_accuracy, ".2%").strip(),
                *(f"{record.metrics[name]:.4f}" for name in names),
                f"{record.lr:.3g}",
            ]
            for record in _some(self.records, self.best_epoch)
        ]
        rest = str(self).splitlines()[len(rows) + 1 :]
        return table(rows, header) + preformatted("\n".join(rest))

    def __str__(self) -> str:
        names = list(self.best.metrics)
        more = "".join(f"  {name:>9}" for name in names)
        lines = [
            f"epoch   train loss  accuracy   validation loss  accuracy{more}         lr  mapping"
        ]
        for record in _some(self.records, self.best_epoch):
            mark = "*" if record.epoch == self.best_epoch else " "
            changes = "" if record.mapping_changes is None else f"{record.mapping_changes} changed"
            line = (
                f"{record.epoch:5d}{mark} {record.train_loss:11.4f} "
                f"{_number(record.train_accuracy, '9.2%')} "
                f"{_number(record.validation_loss, '17.4f')} "
                f"{_number(record.validation_accuracy, '9.2%')}"
                + "".join(f"  {record.metrics[name]:{max(9, len(name))}.4f}" for name in names)
                + f" {record.lr:10.3g}  {changes}"
            )
            lines.append(line.rstrip())
        lines.append(f"{len(self.records)} epochs in {self.seconds:.1f} s; best: {self.best_epoch}")
        lines += [f"stopped: {self.stopped}"] if self.stopped else []
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def _number(value: float | None, form: str) -> str:
    return format(value, form) if value is not None else "-".rjust(int(form.split(".")[0] or 0))


def _some(records: tuple[EpochRecord, ...], best: int) -> list[EpochRecord]:
    """Return all records, or evenly spaced ones with the best and the last."""
    if len(records) <= _SHOWN_EPOCHS:
        return list(records)
    step = len(records) / _SHOWN_EPOCHS
    shown = {int(i * step) for i in range(_SHOWN_EPOCHS)} | {best - 1, len(records) - 1}
    return [records[number] for number in sorted(shown)]
