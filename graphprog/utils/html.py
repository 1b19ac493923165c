"""Texts and tables as HTML, for notebooks; everything given is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def preformatted(text: str) -> str:
    """Return a text as it is, in a font of equal widths."""
    return f"<pre>{html.escape(text)}</pre>"


def table(rows: Iterable[Sequence[str]], header: Sequence[str]) -> str:
    """Return rows of cells as a table."""
    lines = [f"<tr>{_cells(header, 'th')}</tr>", *(f"<tr>{_cells(row, 'td')}</tr>" for row in rows)]
    return f"<table>{''.join(lines)}</table>"


def _cells(texts: Sequence[str], tag: str) -> str:
    style = ' style="text-align:left"'
    return "".join(f"<{tag}{style}>{html.escape(text)}</{tag}>" for text in texts)
