"""All rows, in the order of their numbers, each with the module that measures it."""

from __future__ import annotations

import importlib
import pkgutil

import benchmarks.rows
from benchmarks.table.records import Row


def rows() -> dict[Row, str]:
    """Return the rows, and the name of each one's module."""
    found: dict[Row, str] = {}
    for info in pkgutil.iter_modules(benchmarks.rows.__path__, f"{benchmarks.rows.__name__}."):
        row: Row = importlib.import_module(info.name).ROW
        found[row] = info.name
    return dict(sorted(found.items(), key=lambda pair: pair[0].number))
