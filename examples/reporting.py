"""What the examples say at their end, and the check that their source stayed frozen."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

import graphprog as gp


@contextmanager
def frozen(graph: gp.Graph) -> Iterator[None]:
    """Check that the weights are the same, bit for bit, after the block.

    Raises:
        RuntimeError: they are not.
    """
    before = graph.weight_hash()
    yield
    if graph.weight_hash() != before:
        raise RuntimeError("the source weights changed")


def span(values: Sequence[float]) -> str:
    """Mean, lowest and highest as percentages; a dash for none."""
    if not values:
        return "-"
    return f"{statistics.mean(values):.1%} ({min(values):.1%} to {max(values):.1%})"


def report(table: Table, note: str, outputs: Path, width: int = 100) -> None:
    """Print a table and a note, and write both to ``table.txt``."""
    console = Console(record=True, width=width)
    console.print(table)
    console.print(note)
    (outputs / "table.txt").write_text(console.export_text(), encoding="utf-8")


def model_argument(description: str) -> str | None:
    """The model that the command line names, if any."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--model", help="hf:owner/name, or a folder as save_pretrained writes it")
    model: str | None = parser.parse_args().model
    return model
