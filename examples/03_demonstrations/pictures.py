"""One picture: accuracy against the number of demonstrations."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graphprog.utils.plots.figures import figure, keep

if TYPE_CHECKING:
    from run import Row


def draw(rows: Sequence[Row], chance: float, path: Path) -> None:
    """Means over seeds, with a point for each.

    Args:
        rows: of the table.
        chance: accuracy of a guess.
        path: of the picture.
    """
    drawing, (axis,) = figure(1, 7.0, 4.4)
    counts = sorted({row.count for row in rows})
    places = range(len(counts))

    def means(value: Callable[[Row], float]) -> list[float]:
        return [100 * statistics.mean(value(r) for r in rows if r.count == c) for c in counts]

    def curve(value: Callable[[Row], float], name: str, color: str) -> None:
        axis.plot(places, means(value), "o-", color=color, label=name)
        points = [counts.index(row.count) for row in rows]
        axis.plot(points, [100 * value(row) for row in rows], "_", color=color, markersize=9)

    axis.plot(places, means(lambda row: row.knowable), "--", color="0.5", label="what can be known")
    curve(lambda row: row.right, "demonstrations", "tab:blue")
    curve(lambda row: row.at_random, "with random letters", "tab:orange")
    axis.axhline(100 * chance, color="0.3", linewidth=0.9, linestyle=":")
    axis.text(places[-1] - 0.55, 100 * chance + 1.2, "chance", fontsize=8, color="0.3")
    axis.set_xticks(places, [str(count) for count in counts])
    axis.set_ylim(0, 101)
    axis.set_xlabel("demonstrations")
    axis.set_ylabel("accuracy in %")
    axis.set_title("a new mapping, taught to a frozen model")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="upper left")
    keep(drawing, path)
