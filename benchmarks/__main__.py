"""Measure the table of docs/benchmarks.md, and write it: file of results, plot and page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from benchmarks.table.page import page
from benchmarks.table.plot import plot
from benchmarks.table.records import merged, read, write
from benchmarks.table.registry import rows
from benchmarks.table.runner import ROOT, run

DOCS = ROOT / "docs"


def numbers(text: str) -> list[int]:
    """Parse numbers with commas between them."""
    return [int(part) for part in text.split(",")]


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", type=numbers, metavar="1,2", help="rows to measure")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each measurement")
    parser.add_argument("--tiny", action="store_true", help="sizes of a test, without meaning")
    parser.add_argument(
        "--json", type=Path, help="file of results; the page and the plot are then left alone"
    )
    parser.add_argument(
        "--merge",
        type=Path,
        nargs="*",
        metavar="FILE",
        help="measure nothing: add results of other machines, and write page and plot",
    )
    options = parser.parse_args()
    if options.tiny and not options.json:
        parser.error("--tiny measures nothing worth keeping: add --json PATH")
    known = rows()
    chosen = {
        row: module
        for row, module in known.items()
        if (not options.only or row.number in options.only) and (options.device == "cpu" or row.gpu)
    }
    results = options.json or DOCS / "benchmarks.json"
    given = ["--device", options.device, "--seconds", str(options.seconds)]
    given += ["--tiny"] if options.tiny else []
    for path in options.merge or ():
        write(results, merged(read(results), read(path)))
    failed = run(chosen, given, results, Console()) if options.merge is None else []
    if not options.json:
        write_page(results)
    if failed:
        sys.exit(f"rows that failed: {', '.join(str(row.number) for row in failed)}")


def write_page(results: Path) -> None:
    """Write the table into the documentation, and the plot beside it."""
    records, path = read(results), DOCS / "benchmarks.md"
    path.write_text(page(path.read_text(encoding="utf-8"), records), encoding="utf-8")
    plot(records, DOCS / "benchmarks.png")


if __name__ == "__main__":
    main()
