"""Two pictures: where the classifier looks, and what is read and changed by depth."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import classifier
import torch

import graphprog as gp
from graphprog.utils.plots.figures import figure, keep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from run import Probed


def draw(
    task: gp.ReprogrammedModel,
    images: torch.Tensor,
    labels: torch.Tensor,
    source_maps: torch.Tensor,
    maps: torch.Tensor,
    path: Path,
) -> None:
    """Draw three digits: the input, Grad-CAM without the border, the input with it, Grad-CAM.

    Args:
        task: the trained program.
        images: [N, 1, 8, 8] in [0, 1].
        labels: int64 [N].
        source_maps: Grad-CAM without the border [N, H, W].
        maps: Grad-CAM with it.
        path: of the picture.
    """
    shown = torch.stack([(labels == label).nonzero()[0, 0] for label in labels.unique()[[2, 3, 8]]])
    with torch.no_grad():
        predicted = task(images[shown]).argmax(1).tolist()
    pixels = seen_with(task, images[shown]), seen_with(task, images[shown], border=False)
    drawing, axes = figure(4, 2.5, 2.7, rows=len(shown))
    for row, one in enumerate(shown.tolist()):
        with_border, plain = (some[row] for some in pixels)
        four = axes[4 * row : 4 * row + 4]
        show(four[0], plain)
        show(four[1], plain, source_maps[one])
        show(four[2], with_border)
        show(four[3], with_border, maps[one])
        four[3].set_xlabel(f"read as {predicted[row]}, is {labels[one]}", fontsize=9)
    titles = (
        *("input", "where it looks for\nits ImageNet class"),
        *("with the learned border", "where it looks for\nthe digit"),
    )
    for axis, title in zip(axes, titles, strict=False):
        axis.set_title(title, fontsize=10)
    keep(drawing, path)


def seen_with(
    task: gp.ReprogrammedModel, images: torch.Tensor, border: bool = True
) -> torch.Tensor:
    """What the classifier sees [N, 3, H, W], in [0, 1]."""
    state = task.program_state()
    if not border:
        task.load_program_state(
            {
                name: torch.zeros_like(value) if classifier.BORDER in name else value
                for name, value in state.items()
            }
        )
    (inserted,) = (one for one in task.graph.insertions if one.name == classifier.BORDER)
    node = task.graph.nodes[inserted.result]
    seen = task.graph.evaluate([node], (images,))[node]
    task.load_program_state(state)
    mean, std = classifier.SOURCE_RANGE["mean"], classifier.SOURCE_RANGE["std"]
    return (seen * std + mean).clamp(0, 1)


def show(axis: Axes, image: torch.Tensor, heat: torch.Tensor | None = None) -> None:
    """An image [3, H, W], and a map [H, W] over it."""
    axis.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
    if heat is not None:
        axis.imshow(heat.numpy(), cmap="inferno", alpha=0.6)
    axis.set_xticks([])
    axis.set_yticks([])


def draw_depth(
    compared: Sequence[gp.instruments.Comparison], probes: dict[str, list[Probed]], path: Path
) -> None:
    """Draw what borders change after each block, and what probes read there.

    Args:
        compared: without and with the border, for each seed; the last with a shuffled one.
        probes: those of the models, by what they are called.
        path: of the picture.
    """
    drawing, (left, right) = figure(2, 5.6, 3.8)
    numbers = [*range(len(compared[0].rows))]
    for key, color, label in (("cosine", "tab:blue", "cosine"), ("cka", "tab:orange", "CKA")):
        values = [[getattr(row, key) for row in one.rows] for one in compared]
        band(left, numbers, values[:-1], color, label)
        left.plot(numbers, values[-1], ":", color=color, label=f"{label}, border shuffled")
    left.set_ylabel("agreement without and with the border")
    left.set_title("what the border changes")
    names = [row.name for row in next(iter(probes.values()))[0].probes.rows]
    places = [int(name[7:-1]) for name in names]
    for (label, some), color in zip(probes.items(), ("0.4", "tab:blue", "tab:green"), strict=True):
        band(right, places, [[one.test[n] for n in names] for one in some], color, label)
    control = [row.control for row in next(iter(probes.values()))[0].probes.rows]
    right.plot(places, control, ":", color="0.4", label="permuted labels")
    right.set_ylabel("test accuracy of a linear probe")
    right.set_title("what is known of the digit")
    for axis in (left, right):
        axis.set_ylim(0, 1.02)
        axis.set_xlabel("after block")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    keep(drawing, path)


def band(
    axis: Axes, places: Sequence[int], values: Sequence[Sequence[float]], color: str, label: str
) -> None:
    """The mean of some curves, and the range that they span."""
    columns = [*zip(*values, strict=True)]
    axis.fill_between(
        places, [min(c) for c in columns], [max(c) for c in columns], color=color, alpha=0.2
    )
    means = [statistics.mean(c) for c in columns]
    axis.plot(places, means, "o-", color=color, markersize=4, label=label)
