"""Plots of what a program has learned: patterns, prompts and mappings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from graphprog.errors import ProgramError
from graphprog.utils.plots.figures import Path, figure, keep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED = 60
"""Entries of a prompt up to which each is named."""


def plot_program(
    patterns: Mapping[str, torch.Tensor],
    path: Path | None = None,
    prompts: Mapping[str, torch.Tensor] | None = None,
    nearest: Mapping[str, list[list[tuple[str, float]]]] | None = None,
) -> Figure:
    """Plot the patterns that the additive parts of a program add, and its prompts.

    Args:
        patterns: pattern by part. [3, H, W] and [1, H, W] are drawn as images, scaled from black
            to white if the pattern leaves [0, 1]; any other shape as a curve of its values.
        path: file to write the figure to, if any.
        prompts: entries [P, d] by part, drawn as the cosine similarity of each two of them.
        nearest: for each entry of a part the nearest tokens, with their similarities.

    Raises:
        ProgramError: there is nothing to draw.
    """
    prompts, nearest = prompts or {}, nearest or {}
    if not patterns and not prompts:
        raise ProgramError(
            "there is nothing to plot: the program adds no pattern and inserts no prompt",
            ["print(task.program) to see its tensors"],
        )
    longest = max([len(entries) for entries in prompts.values()], default=0)
    width, height = (6.4, max(4.0, 0.24 * min(longest, _NAMED) + 1.6)) if prompts else (4.2, 4.0)
    drawing, axes = figure(len(patterns) + len(prompts), width, height)
    for axis, (name, entries) in zip(axes[len(patterns) :], prompts.items(), strict=True):
        _draw_prompt(axis, name, entries, nearest.get(name, []))
    for axis, (name, pattern) in zip(axes[: len(patterns)], patterns.items(), strict=True):
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


def _draw_prompt(
    axis: Axes, name: str, entries: torch.Tensor, nearest: list[list[tuple[str, float]]]
) -> None:
    """Draw the cosine similarities of entries [P, d], and name each by its nearest tokens."""
    unit = torch.nn.functional.normalize(entries.detach().float().cpu(), dim=1)
    image = axis.imshow((unit @ unit.T).numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
    axis.figure.colorbar(image, ax=axis, label="cosine similarity")
    axis.set_title(f"{name}  {tuple(entries.shape)}", fontsize=10)
    axis.set_xlabel("entry")
    axis.set_ylabel("entry, and the nearest tokens" if nearest else "entry")
    if nearest and len(entries) <= _NAMED:
        texts = [
            f"{number}  " + "  ".join(f"{text} {value:.2f}" for text, value in tokens)
            for number, tokens in enumerate(nearest)
        ]
        axis.set_yticks(range(len(texts)), [text.replace("$", r"\$") for text in texts], fontsize=7)


def plot_mapping(
    weights: torch.Tensor,
    labels: Sequence[str] = (),
    source_labels: Sequence[str] = (),
    top: int = 3,
    path: Path | None = None,
    reads: str = "source class",
) -> Figure:
    """Plot a mapping as a heat map: rows are target classes, columns their top source classes.

    Args:
        weights: [K_S, K_T], the weight of each source class in each target logit.
        labels: names of the target classes; if empty, numbers.
        source_labels: names of the source classes; if empty, numbers.
        top: source classes shown for each target class.
        path: file to write the figure to, if any.
        reads: what the columns are.
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
    axis.set_xlabel(reads)
    axis.set_ylabel("target class")
    drawing.colorbar(image, ax=axis, label="weight in the target logit")
    return keep(drawing, path)
