"""Tables as plain text."""

from __future__ import annotations

from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> list[str]:
    """Return rows as lines with aligned columns; a header is underlined."""
    every = [header, *rows] if header else rows
    widths = [max(map(len, cells)) for cells in zip(*every, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in every
    ]
    if header:
        lines.insert(1, "  ".join("-" * width for width in widths))
    return lines
