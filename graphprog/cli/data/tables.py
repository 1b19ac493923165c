"""Tables: CSV and JSON Lines, with named columns."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphprog.cli.data.examples import Examples
from graphprog.cli.data.folder import SUFFIXES
from graphprog.errors import DataError
from graphprog.sources.model_name import nearest

LABEL_NAMES = ("label", "labels", "class", "target", "targets", "y")
_CHECKED = 100

Columns = str | Sequence[str] | None


def columns_of(path: str) -> list[str]:
    """Return the names of the columns, from the first row.

    Raises:
        DataError: the file is empty or unreadable.
    """
    first = next(_rows(path), None)
    if first is None:
        raise DataError(f"{path}: holds no rows")
    return list(first)


def chosen_columns(
    path: str, known: Sequence[str], given: Columns, label: str | None, labeled: bool = True
) -> tuple[list[str], str]:
    """Return the columns of inputs, and that of labels.

    Args:
        path: of the table, for messages.
        known: names of all columns.
        given: columns of the inputs; by default all but that of labels, if it is one.
        label: column of the labels; by default ``label`` or a like name.
        labeled: whether there must be labels.

    Raises:
        DataError: there is no such column, or it is not clear which one is meant.
    """
    for name in [
        *([given] if isinstance(given, str) else given or ()),
        *([label] if label else ()),
    ]:
        if name not in known:
            raise DataError(
                f"{path}: has no column {name!r}{nearest(name, known)}",
                [f"one of {', '.join(known)}"],
            )
    found = label or next((name for name in LABEL_NAMES if name in known and name != given), "")
    if labeled and not found:
        raise DataError(f"{path}: which column holds the labels?", [f"label: {', '.join(known)}"])
    if given:
        return [given] if isinstance(given, str) else list(given), found
    others = [name for name in known if name != found]
    if len(others) != 1:
        raise DataError(
            f"{path}: which columns hold the inputs?", [f"input: {', '.join(others or known)}"]
        )
    return others, found


def read_table(path: str, given: Columns, label: str | None, labeled: bool = True) -> Examples:
    """Read a table.

    A column of paths of images or audio files, which begin where the table is, or one of texts; or
    columns of numbers.

    Raises:
        DataError: a column is missing, or a cell is not what its column holds.
    """
    rows = list(_rows(path))
    if not rows:
        raise DataError(f"{path}: holds no rows")
    names, label_name = chosen_columns(path, list(rows[0]), given, label, labeled)
    cells = [[row[name] for name in names] for row in rows]
    labels = [row[label_name] for row in rows] if label_name else []
    places = [f"row {number}" for number in range(1, len(rows) + 1)]
    numeric = all(_number(cell) is not None for cell in itertools.chain(*cells[:_CHECKED]))
    if len(names) > 1 or numeric:
        return Examples("array", _numbers(path, names, cells), labels, (), path, places)
    values = [row[0] for row in cells]
    for place, value in zip(places, values, strict=True):
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{path}: {place}: {names[0]} is {value!r:.40}, not a text or a path")
    kinds = {SUFFIXES.get(Path(value).suffix.lower(), "text") for value in values[:_CHECKED]}
    if len(kinds) == 1 and (kind := kinds.pop()) != "text":
        folder = Path(path).parent
        return Examples(kind, [folder / value for value in values], labels, (), path, places)
    return Examples("text", values, labels, (), path, places)


def _rows(path: str) -> Iterator[dict[str, Any]]:
    """Yield rows as columns by name.

    Raises:
        DataError: the file cannot be read, or a row has other columns than the first.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            if path.lower().endswith(".jsonl"):
                yield from _objects(path, file)
                return
            reader = csv.DictReader(file, dialect=_dialect(path), restkey="", restval=None)
            for row in reader:
                if None in row.values() or "" in row:
                    raise DataError(f"{path}: line {reader.line_num} has more or fewer cells")
                yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _dialect(path: str) -> str:
    return "excel-tab" if path.lower().endswith(".tsv") else "excel"


def _objects(path: str, lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    known: list[str] | None = None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}: line {number} is not JSON: {error}") from error
        if not isinstance(row, dict) or (known is not None and not set(known) <= row.keys()):
            raise DataError(f"{path}: line {number} is not an object with the keys of the first")
        known = list(row) if known is None else known
        yield row


def _numbers(path: str, names: Sequence[str], cells: list[list[Any]]) -> np.ndarray:
    found = np.empty((len(cells), len(names)), np.float32)
    for number, row in enumerate(cells):
        for place, cell in enumerate(row):
            value = _number(cell)
            if value is None or not math.isfinite(value):
                raise DataError(
                    f"{path}: row {number + 1}: {names[place]} is {cell!r:.40}, not a number"
                )
            found[number, place] = value
    return found


def _number(cell: Any) -> float | None:
    try:
        return float(cell) if isinstance(cell, str | int | float) else None
    except ValueError:
        return None
