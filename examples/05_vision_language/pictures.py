"""One picture: digits of both domains, and what each program reaches."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import images
import matplotlib.pyplot as plt
import torch

if TYPE_CHECKING:
    from run import Row

COLORS = {"texts": "0.6", "pixels": "tab:orange", "tokens": "tab:blue", "reference": "0.8"}


def draw(rows: Sequence[Row], test: images.Examples, path: Path) -> None:
    """Samples on the left, means over the seeds with a point for each on the right.

    Args:
        rows: of the table.
        test: pictures of the new domain.
        path: of the picture.
    """
    figure = plt.figure(figsize=(11, 4.8))
    grid = figure.add_gridspec(1, 2, width_ratios=[1, 1.6], wspace=0.45)
    left = grid[0].subgridspec(2, 1, hspace=0.35)
    ink, labels = images.digits()["source"]
    home = images.source(ink[:8], labels[:8], random.Random(4))
    titles = (f"trained on, such as “{home.captions[0]}”", "programmed for")
    for place, shown, title in zip(left, (home.pictures, test[0][:8]), titles, strict=True):
        axis = figure.add_subplot(place)
        lines = torch.cat(list(shown.unflatten(0, (2, 4))), 2)
        axis.imshow(torch.cat(list(lines), 2).permute(1, 2, 0).numpy())
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    axis = figure.add_subplot(grid[1])
    names = list(dict.fromkeys(row.method.name for row in rows))
    for position, name in enumerate(reversed(names)):
        own = [row for row in rows if row.method.name == name]
        tests = [100 * row.test for row in own]
        color = COLORS[own[0].method.kind]
        axis.barh(position, statistics.mean(tests), color=color, height=0.65)
        axis.plot(tests, [position] * len(tests), "|", color="black", markersize=7)
        label = f"{own[0].method.kind}: {name}" if own[0].method.kind != "reference" else name
        axis.text(-1, position, f"{label}\n{own[0].trained:,} trained", ha="right", va="center",
                  fontsize=8)  # fmt: skip
        axis.text(max(tests) + 1, position, f"{statistics.mean(tests):.1f}", va="center")
    axis.axvline(10, color="0.3", linewidth=0.9, linestyle="--")
    axis.set_yticks([])
    axis.set_xlim(0, 100)
    axis.set_xlabel("test accuracy in %, chance is 10")
    axis.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
