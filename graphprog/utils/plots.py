"""Pictures of what a program has learnt; matplotlib is loaded when one is asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from graphprog.errors import ProgramError
from graphprog.utils.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Path = str | os.PathLike[str]


def figure(columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with a row of axes, drawn without any window system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width * columns, height), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots(1, columns, squeeze=False)
    return drawing, list(axes[0])


def keep(drawing: Figure, path: Path | None) -> Figure:
    """Write a figure to a file, atomically, if a path is given; the suffix says the format."""
    if path is not None:
        atomic_write(path, lambda temporary: drawing.savefig(temporary, dpi=144))
    return drawing


def plot_program(patterns: dict[str, torch.Tensor], path: Path | None = None) -> Figure:
    """Draw what additive parts of a program add.

    Args:
        patterns: part name to pattern. [3, H, W] and [1, H, W] become images, in which the
            pattern's own range fills black to white where it leaves [0, 1]; anything else a curve
            of its numbers.
        path: where to write the picture, if anywhere.

    Raises:
        ProgramError: there is nothing to draw.
    """
    if not patterns:
        raise ProgramError("the program adds nothing, so there is nothing to draw")
    drawing, axes = figure(len(patterns), 4.2, 4.0)
    for axis, (name, pattern) in zip(axes, patterns.items(), strict=True):
        values = pattern.detach().float().cpu()
        low, high = float(values.min()), float(values.max())
        axis.set_title(
            f"{name}  {tuple(values.shape)}\nvalues {low:.2f} to {high:.2f}", fontsize=10
        )
        if values.ndim == 3 and values.shape[0] in (1, 3) and min(values.shape[1:]) > 1:
            if low < 0 or high > 1:
                values = (values - low) / max(high - low, 1e-12)
            axis.imshow(values.permute(1, 2, 0).numpy(), cmap="gray", interpolation="nearest")
            axis.set_axis_off()
        else:
            axis.plot(values.reshape(-1).numpy(), linewidth=0.8)
            axis.axhline(0.0, color="black", linewidth=0.5)
            axis.set_xlabel("entry")
            axis.set_ylabel("added value")
    return keep(drawing, path)


def plot_mapping(
    weights: torch.Tensor,
    labels: Sequence[str] = (),
    source_labels: Sequence[str] = (),
    top: int = 3,
    path: Path | None = None,
) -> Figure:
    """Draw a mapping as a heat-map: target classes down, the source classes that matter across.

    Args:
        weights: [K_S, K_T], how much of each source class goes into each target logit.
        labels: names of the target classes; numbers where empty.
        source_labels: names of the source classes; numbers where empty.
        top: source classes shown for every target class.
        path: where to write the picture, if anywhere.
    """
    values = weights.detach().float().cpu()
    shown: list[int] = []
    for target in range(values.shape[1]):
        best = values[:, target].abs().topk(min(top, values.shape[0])).indices.tolist()
        shown += [source for source in best if source not in shown and values[source, target] != 0]
    part = values[shown].T
    rows, columns = part.shape
    drawing, (axis,) = figure(1, max(4.5, 0.32 * columns + 1.5), max(3.2, 0.34 * rows + 1.8))
    signed = bool((part < 0).any())
    bound = float(part.abs().max()) or 1.0
    image = axis.imshow(
        part.numpy(),
        aspect="auto",
        cmap="RdBu_r" if signed else "viridis",
        vmin=-bound if signed else 0.0,
        vmax=bound,
    )
    names = [source_labels[i] if source_labels else str(i) for i in shown]
    axis.set_xticks(range(columns), [name[:24] for name in names], rotation=90, fontsize=8)
    axis.set_yticks(range(rows), [labels[i] if labels else str(i) for i in range(rows)], fontsize=9)
    axis.set_xlabel("source class")
    axis.set_ylabel("target class")
    drawing.colorbar(image, ax=axis, label="weight in the target logit")
    return keep(drawing, path)
