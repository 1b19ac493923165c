"""One picture: accuracy against the number of operations, and over all of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from arithmetic import LENGTHS

from graphprog.utils.plots.figures import figure, keep

if TYPE_CHECKING:
    from run import Row


def draw(rows: Sequence[Row], path: Path) -> None:
    """Means over seeds, with a point for each."""
    drawing, (axis,) = figure(1, 7.0, 4.4)
    lengths = sorted({row.length for row in rows})
    colors = ("0.6", "tab:orange", "tab:green", "tab:blue", "tab:purple")
    styles = iter(("o-", "o-", "s-", "D--", "o:"))  # where several programs are always right
    for name, color in zip(dict.fromkeys(row.method for row in rows), colors, strict=False):
        own = [row for row in rows if row.method == name]
        means = [100 * statistics.mean(r.accuracy for r in own if r.length == n) for n in lengths]
        axis.plot(lengths, means, next(styles), color=color, label=name)
        points = [100 * row.accuracy for row in own]
        axis.plot([row.length for row in own], points, "_", color=color, markersize=9)
    longest = max(LENGTHS)
    if max(lengths) > longest:
        axis.axvline(longest + 0.5, color="0.3", linewidth=0.9, linestyle=":")
        told = {"rotation": 90, "va": "center", "fontsize": 8, "color": "0.3"}
        axis.text(longest + 0.53, 78, "longer than in training", **told)
    axis.set_xticks(lengths)
    axis.set_ylim(-1, 102)
    axis.set_xlabel("operations in a row")
    axis.set_ylabel("right answers in %")
    axis.set_title("calculations that were kept out of training, one frozen model")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    keep(drawing, path)
