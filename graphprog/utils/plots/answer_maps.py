"""Maps of what a model would answer, by layer and position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from graphprog.errors import DataError
from graphprog.utils.plots.figures import Path, figure, keep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST = 10


def plot_answers(
    names: Sequence[str],
    chances: torch.Tensor,
    answers: Sequence[Sequence[str]],
    path: Path | None,
    tokens: Sequence[str] | None,
) -> Figure:
    """Plot answers with their probability as a map, the last layer on top.

    Args:
        names: the layers.
        chances: [layers, positions], within 0 and 1.
        answers: text of each cell.
        path: file of the picture.
        tokens: label of each position.

    Raises:
        DataError: there are not as many labels as positions.
    """
    columns = chances.shape[1]
    if tokens is not None and len(tokens) != columns:
        raise DataError(
            f"{len(tokens)} tokens are no labels of the {columns} positions",
            ["tokens= has a label for each position of the inputs"],
        )
    wide, high = min(max(4.0, 0.75 * columns + 1.6), 30.0), max(2.4, 0.32 * len(names) + 1.2)
    drawing, (axis,) = figure(1, wide, high)
    shown = axis.imshow(chances.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, texts in enumerate(answers):
        for column, text in enumerate(texts):
            dark = float(chances[row, column]) > 0.6
            axis.text(
                column, row, plain(text, _LONGEST), ha="center", va="center", fontsize=7,
                color="white" if dark else "black",
            )  # fmt: skip
    axis.invert_yaxis()
    axis.set_yticks(range(len(names)), names)
    labels = [plain(token) for token in tokens or map(str, range(columns))]
    axis.set_xticks(range(columns), labels, rotation=60 if tokens is not None else 0)
    axis.set_xlabel("position")
    drawing.colorbar(shown, ax=axis, label="probability of the answer")
    return keep(drawing, path)


def plain(text: str, longest: int | None = None) -> str:
    """Return a text of visible signs, shortened, that is not read as a formula."""
    shown = repr(text)[1:-1]
    if longest is not None and len(shown) > longest:
        shown = f"{shown[: longest - 1]}…"
    return shown.replace("$", r"\$")
