"""One picture: where the sentiment can be read, and what writing it back does."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import graphprog as gp
from graphprog.utils.plots.figures import figure, keep

if TYPE_CHECKING:
    from run import Row


def draw(contrast: gp.instruments.Contrast, rows: Sequence[Row], place: str, path: Path) -> None:
    """Separation by layer, and the share of positive texts by vector, with a point per seed."""
    drawing, (left, right) = figure(2, 6.0, 4.0)
    numbers = range(len(contrast.rows))
    left.plot(numbers, [100 * row.separation for row in contrast.rows], "o-", markersize=4)
    chosen = [row.name for row in contrast.rows].index(place)
    left.axvline(chosen, color="tab:orange", linewidth=1, label=f"steered: {place}")
    left.axhline(50, color="0.5", linestyle="--", linewidth=1, label="chance")
    left.set_xlabel("block")
    left.set_ylabel("held-out texts told apart in %")
    left.set_title("where the sentiment is read")
    left.legend(frameon=False)
    names = [row.name for row in rows]
    means = [100 * statistics.mean(row.positive) for row in rows]
    right.barh(names, means, color=["0.7", "tab:green", "tab:red", "0.85"][: len(rows)])
    for position, row in enumerate(rows):
        right.plot([100 * value for value in row.positive], [position] * len(row.positive), "k|")
    right.invert_yaxis()
    right.set_xlim(0, 100)
    right.set_xlabel("continuations that the judge finds positive in %")
    right.set_title("what the vector does to new texts")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    keep(drawing, path)
