"""Plots of attention weights: maps over tokens, and over the patches of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from graphprog.errors import DataError
from graphprog.utils.plots.figures import Path, figure, keep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 4
_NAMED = 48
"""Tokens up to which each is named."""


def plot_attention(
    weights: torch.Tensor,
    path: Path | None = None,
    *,
    tokens: Sequence[str] | None = None,
    image: torch.Tensor | None = None,
    grid: tuple[int, int] | None = None,
    query: int = 0,
) -> Figure:
    """Plot attention weights, a panel for each head, all on one scale.

    Args:
        weights: [H, T, S] or [T, S], as of ``attention[3].weights`` for one row of a batch.
        path: file of the picture.
        tokens: texts of the T queries, as labels. Keys before them, as those of a prefix, get
            numbers.
        image: [3, H, W] or [1, H, W]; the weights of one query lie over it.
        grid: rows and columns of the patches of the image, which are the last keys.
        query: the query whose weights lie over the image; 0 is often a class token.

    Raises:
        DataError: shapes do not fit together, or there is no such query.

    Example:
        >>> weights = gp.record(language, ids, at="attention[0].weights")["attention[0].weights"]
        >>> drawing = gp.instruments.plot_attention(weights[0], tokens=[*"abcdef"])
    """
    heads = weights.detach().float().cpu()
    heads = heads[None] if heads.ndim == 2 else heads
    if heads.ndim != 3 or 0 in heads.shape:
        raise DataError(
            f"weights have shape {list(weights.shape)}; [heads, queries, keys] are needed",
            ["take one row of the batch: weights[0]"],
        )
    if (image is None) != (grid is None) or (image is not None and tokens is not None):
        raise DataError(
            "give either tokens=, or image= and grid= together", ["grid=(14, 14) for 196 patches"]
        )
    if image is not None and grid is not None:
        return keep(_over_image(heads, image, grid, query), path)
    return keep(_over_tokens(heads, tokens), path)


def _over_tokens(heads: torch.Tensor, tokens: Sequence[str] | None) -> Figure:
    count, queries, keys = heads.shape
    if tokens is not None and (len(tokens) != queries or queries > keys):
        raise DataError(
            f"{len(tokens)} tokens do not label {queries} queries and {keys} keys",
            ["give one text for each query", "leave out tokens= if keys are another sequence"],
        )
    wide, high = (min(max(2.4, 0.19 * size + 1.0), 9.0) for size in (keys, queries))
    drawing, axes = _panels(count, wide, high)
    top = float(heads.max())
    for axis, weights in zip(axes, heads, strict=False):
        shown = axis.imshow(weights.numpy(), cmap="viridis", vmin=0, vmax=top, aspect="auto")
    for axis in axes[:count]:
        _label(axis, tokens if keys <= _NAMED else None, queries, keys)
    drawing.colorbar(shown, ax=axes, label="attention weight", shrink=0.8)
    return drawing


def _label(axis: Axes, tokens: Sequence[str] | None, queries: int, keys: int) -> None:
    axis.set_xlabel("key", fontsize=8)
    axis.set_ylabel("query", fontsize=8)
    if tokens is None:
        axis.locator_params(integer=True)
        return
    texts = [repr(text)[1:-1].replace("$", r"\$") for text in tokens]
    before = [str(number) for number in range(keys - queries)]
    axis.set_xticks(range(keys), [*before, *texts], rotation=90, fontsize=7)
    axis.set_yticks(range(queries), texts, fontsize=7)


def _over_image(
    heads: torch.Tensor, image: torch.Tensor, grid: tuple[int, int], query: int
) -> Figure:
    count, queries, keys = heads.shape
    patches = grid[0] * grid[1]
    if min(grid) < 1 or patches > keys or not -queries <= query < queries:
        raise DataError(
            f"weights of {queries} queries and {keys} keys have no query {query} with "
            f"{grid[0]} x {grid[1]} patches"
        )
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise DataError(f"the image has shape {list(image.shape)}; [3, H, W] is needed")
    picture = image.detach().float().cpu()
    picture = (picture - picture.min()) / (picture.max() - picture.min()).clamp(min=1e-12)
    maps = heads[:, query, keys - patches :].reshape(count, *grid)
    drawing, axes = _panels(count, 2.8, 3.1)
    top, extent = float(maps.max()), (0, picture.shape[2], picture.shape[1], 0)
    for axis, over in zip(axes, maps, strict=False):
        axis.imshow(picture.mean(0).numpy(), cmap="gray", extent=extent)
        visible = (0.1 + 0.7 * over / max(top, 1e-12)).numpy()  # where no weight is, the picture
        shown = axis.imshow(
            over.numpy(), cmap="inferno", vmin=0, vmax=top, alpha=visible, extent=extent
        )
        share = f"{100 * float(over.sum()):.0f} % on patches"
        axis.text(0.5, -0.02, share, ha="center", va="top", transform=axis.transAxes, fontsize=8)
        axis.set_axis_off()
    drawing.colorbar(shown, ax=axes, label=f"attention weight of query {query}", shrink=0.8)
    return drawing


def _panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with an axis for each head, and the axes."""
    columns = min(count, _COLUMNS)
    drawing, axes = figure(columns, width, height, math.ceil(count / columns))
    for number, axis in enumerate(axes):
        if number >= count:
            axis.set_axis_off()
        elif count > 1:
            axis.set_title(f"head {number}", fontsize=9)
    return drawing, axes
