"""Plots of attention weights: maps over tokens, and over the patches of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from graphprog.errors import DataError
from graphprog.utils.plots.answer_maps import plain
from graphprog.utils.plots.figures import Path, figure, keep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

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
    texts = [plain(text) for text in tokens]
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
    maps = heads[:, query, keys - patches :].reshape(count, *grid)
    drawing, axes = _panels(count, 2.8, 3.1)
    for axis, over in zip(axes, maps, strict=False):
        shown = _lay(axis, image, over, float(maps.max()))
        share = f"{100 * float(over.sum()):.0f} % on patches"
        axis.text(0.5, -0.02, share, ha="center", va="top", transform=axis.transAxes, fontsize=8)
    drawing.colorbar(shown, ax=axes, label=f"attention weight of query {query}", shrink=0.8)
    return drawing


def plot_places(places: torch.Tensor, images: torch.Tensor, path: Path | None = None) -> Figure:
    """Plot which places of images speak for a class, as :func:`grad_cam` says, over the images.

    Args:
        places: [B, H, W], not negative; each image has a scale of its own.
        images: [B, 3, H, W] or [B, 1, H, W], with rows and columns of their own.
        path: file of the picture.

    Raises:
        DataError: shapes do not fit together.

    Example:
        >>> places = gp.instruments.grad_cam(graph, images, "hidden[1]")
        >>> drawing = gp.instruments.plot_places(places, images)
    """
    maps = places.detach().float().cpu()
    if maps.ndim != 3 or 0 in maps.shape or images.ndim != 4 or len(images) != len(maps):
        raise DataError(
            f"places {list(places.shape)} and images {list(images.shape)} do not fit; [B, H, W] "
            "and [B, 3, H, W] are needed",
            ["places = gp.instruments.grad_cam(graph, images, at)"],
        )
    drawing, axes = _panels(len(maps), 2.8, 2.8, "image")
    for axis, image, over in zip(axes, images, maps, strict=False):
        shown = _lay(axis, image, over / over.max().clamp(min=1e-12), 1.0)
    drawing.colorbar(shown, ax=axes, label="share of the largest place", shrink=0.8)
    return keep(drawing, path)


def _lay(axis: Axes, image: torch.Tensor, over: torch.Tensor, top: float) -> AxesImage:
    """Show an image in gray, and a map over it."""
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise DataError(f"the image has shape {list(image.shape)}; [3, H, W] is needed")
    picture = image.detach().float().cpu()
    picture = (picture - picture.min()) / (picture.max() - picture.min()).clamp(min=1e-12)
    extent = (0, picture.shape[2], picture.shape[1], 0)
    axis.imshow(picture.mean(0).numpy(), cmap="gray", extent=extent)
    visible = (0.1 + 0.7 * over / max(top, 1e-12)).numpy()  # where no weight is, the picture
    axis.set_axis_off()
    return axis.imshow(over.numpy(), cmap="inferno", vmin=0, vmax=top, alpha=visible, extent=extent)


def _panels(
    count: int, width: float, height: float, name: str = "head"
) -> tuple[Figure, list[Axes]]:
    """Return a figure with an axis for each head or image, and the axes."""
    columns = min(count, _COLUMNS)
    drawing, axes = figure(columns, width, height, math.ceil(count / columns))
    for number, axis in enumerate(axes):
        if number >= count:
            axis.set_axis_off()
        elif count > 1:
            axis.set_title(f"{name} {number}", fontsize=9)
    return drawing, axes
