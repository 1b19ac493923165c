"""One picture: what each method reaches, and where it puts the docstrings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import torch
from sklearn.manifold import TSNE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from run import Row


def draw(
    rows: Sequence[Row],
    clouds: Mapping[str, torch.Tensor],
    labels: torch.Tensor,
    names: Sequence[str],
    path: Path,
) -> None:
    """Bars of the accuracies, and the features of the test split in two dimensions.

    Args:
        rows: of the table.
        clouds: features [N, F] by title.
        labels: of the features, int64 [N].
        names: of the classes.
        path: of the picture.
    """
    figure, axes = plt.subplots(
        1, 1 + len(clouds), figsize=(14, 4.6), width_ratios=[0.8, *[1.0] * len(clouds)]
    )
    bars(axes[0], rows, chance=1 / len(names))
    for axis, (title, values) in zip(axes[1:], clouds.items(), strict=True):
        scatter(axis, values, labels, names)
        axis.set_title(f"test docstrings, {title}", pad=14)
    handles, texts = axes[1].get_legend_handles_labels()
    figure.legend(
        handles, texts, loc="lower right", ncols=len(names), frameon=False, fontsize=9,
        bbox_to_anchor=(0.995, 0.0), columnspacing=0.9, handletextpad=0.1, markerscale=1.6,
    )  # fmt: skip
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def bars(axis: Axes, rows: Sequence[Row], chance: float) -> None:
    """Test accuracy of every method, with the number of trained parameters."""
    positions = range(len(rows) - 1, -1, -1)
    colors = ["0.8", "0.65", *["tab:blue"] * len(rows)][: len(rows)]
    axis.barh(positions, [100 * row.test for row in rows], color=colors, height=0.6)
    for position, row in zip(positions, rows, strict=True):
        axis.text(100 * row.test + 1, position, f"{100 * row.test:.1f} %", va="center")
    axis.set_yticks(positions, [f"{row.method}\n{row.trained:,} trained" for row in rows])
    axis.tick_params(axis="y", length=0)
    axis.axvline(100 * chance, color="0.3", linewidth=0.9, linestyle="--")
    axis.text(100 * chance + 1, len(rows) - 0.52, "chance", fontsize=8, color="0.3")
    axis.set_xlim(0, 10 * round(10 * max(row.test for row in rows) + 1.5))
    axis.set_xlabel("test accuracy in %")
    axis.set_title("which library is it from?", pad=14)
    axis.spines[["top", "right", "left"]].set_visible(False)


def scatter(axis: Axes, values: torch.Tensor, labels: torch.Tensor, names: Sequence[str]) -> None:
    """Features in the two dimensions of t-SNE, colored by class."""
    points = TSNE(perplexity=30, init="pca", random_state=0).fit_transform(values.numpy())
    colors = plt.get_cmap("Dark2").colors
    for label, name in enumerate(names):
        own = points[(labels == label).numpy()]
        axis.scatter(*own.T, s=11, color=colors[label % len(colors)], label=name, linewidths=0)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_xlabel("t-SNE, first dimension")
    axis.set_ylabel("t-SNE, second dimension")
