"""The command line of a row's script."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.table.records import Record, Row, Setting, write
from benchmarks.turns import machine

Measure = Callable[[Setting], list[Record]]


def main(row: Row, measure: Measure) -> None:
    """Measure a row as the command line says, print its records, and write them to a file.

    Args:
        row: the row.
        measure: measures it.
    """
    parser = argparse.ArgumentParser(description=f"row {row.number}: {row.work}, beside {row.peer}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--tiny", action="store_true", help="sizes of a test, without meaning")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each measurement")
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()
    if options.device == "cuda" and not row.gpu:
        sys.exit(f"row {row.number} is measured on the CPU only")
    found = measure(setting(options.device, options.tiny, options.seconds))
    for one in found:
        print(told(one))
    if options.json:
        write(options.json, found)


def setting(device: str, tiny: bool, seconds: float) -> Setting:
    """Return how to measure on this machine: one thread of the CPU, or the GPU."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if device == "cuda":
        name = torch.cuda.get_device_name()
        return Setting(device, tiny, seconds, name, f"{name}; torch {torch.__version__}")
    return Setting(device, tiny, seconds, "CPU", machine())


def told(record: Record) -> str:
    """Say a record in a line."""
    bound = f"asked {'≥' if record.least else '≤'} {record.asked:g}"
    head = f"{record.row}. {record.work}, beside {record.peer}, {record.quantity}"
    if record.ratio is None:
        return f"{head}: not measured, {record.note} ({bound})"
    assert record.spread is not None
    low, high = record.spread
    values = ", ".join(
        f"{name} {amount(value, record.quantity)}" for name, value in record.contestants.items()
    )
    note = f"; {record.note}" if record.note else ""
    turns = f"{low:.2f} to {high:.2f} in {record.turns} turns"
    return f"{head}: {record.ratio:.2f} ({bound}; {turns}); {values}{note}"


def amount(value: float, quantity: str) -> str:
    """Seconds or bytes, as people read them."""
    if quantity == "memory":
        return f"{value / 2**20:,.0f} MiB" if value >= 2**20 else f"{value / 2**10:,.1f} KiB"
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.1f} ms"


def only(row: Row, records: Sequence[Record]) -> list[Record]:
    """Check that every ratio that a row asks for has its record."""
    assert len(records) == len(row.asks), f"row {row.number}"
    return list(records)
