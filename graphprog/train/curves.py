"""Training curves."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from graphprog.utils.plots import figure, keep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from graphprog.train.history import History


def plot_history(history: History, path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw loss and accuracy by epoch side by side; see :meth:`History.plot`."""
    drawing, (loss, accuracy) = figure(2, 5.2, 3.8)
    records, best = history.records, history.best
    _draw(loss, history, [r.train_loss for r in records], [r.validation_loss for r in records])
    _draw(
        accuracy,
        history,
        [100 * r.train_accuracy for r in records],
        [None if r.validation_accuracy is None else 100 * r.validation_accuracy for r in records],
    )
    loss.set_ylabel("loss")
    accuracy.set_ylabel("accuracy in %")
    shown = best.validation_accuracy
    text = f"epoch {best.epoch}" + ("" if shown is None else f": {shown:.1%} validation accuracy")
    drawing.suptitle(f"program kept: {text}", fontsize=11)
    return keep(drawing, path)


def _draw(axis: Axes, history: History, train: list[float], held_out: list[float | None]) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = [record.epoch for record in history.records]
    style = "o" if len(epochs) == 1 else "o-" if len(epochs) <= 30 else "-"
    axis.plot(epochs, train, style, markersize=3, color="tab:blue", label="training")
    marked = train[history.best_epoch - 1]
    values = [value for value in held_out if value is not None]
    if len(values) == len(epochs):
        axis.plot(epochs, values, style, markersize=3, color="tab:orange", label="validation")
        marked = values[history.best_epoch - 1]
    axis.axvline(history.best_epoch, color="gray", linewidth=0.8, linestyle="--")
    axis.plot(history.best_epoch, marked, "*", markersize=12, color="tab:red", label="program kept")
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
