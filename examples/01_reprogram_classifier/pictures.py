"""One picture: what goes in, what the pattern makes of it, what the source sees, and the answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import programs
import torch

import graphprog as gp

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = (
    "input",
    "learned pattern",
    "what the frozen\nclassifier reads",
    "its ImageNet classes",
    "prediction\n(the true class is green)",
)


def draw(
    task: gp.ReprogrammedModel, images: torch.Tensor, labels: torch.Tensor, path: Path
) -> None:
    """One row per example, from the image to the prediction.

    Args:
        task: the trained program.
        images: [N, 1, H, W] in [0, 1].
        labels: int64 [N].
        path: of the picture.
    """
    with torch.no_grad():
        logits, read = task.both(images)
    (inserted,) = (item for item in task.graph.insertions if item.name == "pattern")
    node = task.graph.nodes[inserted.result]
    seen = task.graph.evaluate([node], (images,))[node]
    mean, std = programs.SOURCE_RANGE["mean"], programs.SOURCE_RANGE["std"]
    pattern = task.program.patterns()["pattern"]
    figure, axes = plt.subplots(
        len(images), len(COLUMNS), figsize=(11.5, 2.1 * len(images)), squeeze=False,
        width_ratios=[1, 1, 1, 1.3, 1.3],
    )  # fmt: skip
    for axis, title in zip(axes[0], COLUMNS, strict=True):
        axis.set_title(title, fontsize=11, pad=10)
    for row, image, value, scores, source, label in zip(
        axes, images, seen, logits.softmax(1), read.softmax(1), labels, strict=True
    ):
        show(row[0], image)
        show(row[1], (pattern - pattern.min()) / (pattern.max() - pattern.min()))
        show(row[2], (value * std + mean).clamp(0, 1))
        best = source.topk(5)
        bars(row[3], [f"no. {number}" for number in best.indices.tolist()], best.values)
        names = task.spec.contract.labels
        bars(row[4], names, scores, right=int(label))
    for row in axes:
        row[1].text(-0.18, 0.5, "+", transform=row[1].transAxes, fontsize=20, ha="center")
        row[2].text(-0.18, 0.5, "=", transform=row[2].transAxes, fontsize=20, ha="center")
    for axis in axes[-1][3:]:
        axis.set_xlabel("probability")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def show(axis: Axes, image: torch.Tensor) -> None:
    """An image [C, H, W] in [0, 1]."""
    pixels = image.permute(1, 2, 0).numpy()
    axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])


def bars(
    axis: Axes, names: tuple[str, ...] | list[str], shares: torch.Tensor, right: int | None = None
) -> None:
    """Probabilities by name; the true class in green."""
    colors = ["tab:green" if number == right else "tab:blue" for number in range(len(names))]
    axis.barh(range(len(names)), shares.numpy(), color=colors, height=0.7)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.spines[["top", "right"]].set_visible(False)
