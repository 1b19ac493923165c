"""The file around graphs: one page without network, and the page inside a notebook."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import torch

from graphprog.ir.drawing.document import Drawn, Stage, document_of
from graphprog.utils.files import atomic_write

DATA, TITLE = "@graphs@", "@title@"
"""Where the built page takes the graphs, and its title."""

_IN_NOTEBOOK = 4_000_000


@cache
def _built() -> str:
    return resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")


def page_text(stages: Sequence[Stage], values: Mapping[str, torch.Tensor] | None = None) -> str:
    """Return the page with graphs in it.

    Names from a graph are data there: the browser never reads them as HTML or code.
    """
    document = document_of(stages, values)
    data = json.dumps(document, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    title = html.escape(document["title"])
    return _built().replace(DATA, data, 1).replace(TITLE, title, 1)


def write_page(
    path: str | os.PathLike[str],
    stages: Sequence[Stage],
    values: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """Write the page to a file, atomically.

    Raises:
        FileError: the file cannot be written.
    """
    text = page_text(stages, values)
    return atomic_write(path, lambda file: file.write_text(text, encoding="utf-8"))


def stages_of(graph: Drawn, base: Drawn | None) -> list[Stage]:
    """Return the graph, after the source that it was made from."""
    sources = [] if base is None else [Stage("source", base)]
    return [*sources, Stage("graph", graph)]


def notebook_html(stages: Sequence[Stage], text: str) -> str:
    """Return the page in a frame of its own; the text where the page is too large."""
    page = page_text(stages)
    if len(page) > _IN_NOTEBOOK:
        size = f"{len(page) / 1e6:.0f} MB"
        note = f'The page has {size}; write it to a file: draw("graph.html")'
        return f"<pre>{html.escape(text)}\n\n{html.escape(note)}</pre>"
    return (
        '<iframe sandbox="allow-scripts" style="width:100%;height:600px;border:1px solid #8886" '
        f'title="graph" srcdoc="{html.escape(page)}"></iframe>'
    )
