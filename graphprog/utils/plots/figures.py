"""Figures without a display, and their files; matplotlib is imported when used."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from graphprog.utils.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Path = str | os.PathLike[str]


def figure(columns: int, width: float, height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure with axes, row by row; it needs no display.

    Args:
        columns: axes of a row.
        width: of an axis, in inches.
        height: of a row, in inches.
        rows: number of rows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots(rows, columns, squeeze=False)
    return drawing, list(axes.flat)


def keep(drawing: Figure, path: Path | None) -> Figure:
    """Write a figure atomically to a file, if a path is given; the suffix sets the format."""
    if path is not None:
        atomic_write(path, lambda temporary: drawing.savefig(temporary, dpi=144))
    return drawing
