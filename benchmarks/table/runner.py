"""Running rows, each in a process of its own, one after another."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from benchmarks.table.records import Record, Row, merged, read, write
from benchmarks.table.script import told

ROOT = Path(__file__).resolve().parents[2]


def run(rows: Mapping[Row, str], options: list[str], results: Path, console: Console) -> list[Row]:
    """Measure rows, and write the results of each as soon as they are there.

    Args:
        rows: the rows, and the module of each.
        options: for the script of each.
        results: the file of all records; those of other rows and devices are kept.
        console: where progress is shown, and what was measured.

    Returns:
        The rows whose script failed.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    failed = []
    with Progress(*columns, TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("rows", total=len(rows))
        for row, module in rows.items():
            bar.update(task, description=f"row {row.number}")
            found = measured(module, options)
            if found is None:
                failed.append(row)
            else:
                write(results, merged(read(results), found))
            for one in found or ():
                mark = ("reached ", "green") if one.reached else ("not reached ", "yellow")
                bar.console.print(Text.assemble(mark, told(one)), soft_wrap=True)
            bar.advance(task)
    return failed


def measured(module: str, options: list[str]) -> list[Record] | None:
    """Run the script of a row; None if it fails, which shows what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.json"
        command = [sys.executable, "-m", module, *options, "--json", str(path)]
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **one_thread},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            print(f"{module} failed:\n{done.stdout[-4000:]}", file=sys.stderr)
            return None
        return read(path)
