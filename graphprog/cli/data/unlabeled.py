"""Examples without labels, for predictions: files, folders, tables, lines of text, arrays."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphprog.cli.data.arrays import loaded
from graphprog.cli.data.data_name import TABLES
from graphprog.cli.data.examples import Examples, require_some
from graphprog.cli.data.folder import SUFFIXES, files_of, read_text
from graphprog.cli.data.tables import Columns, read_table
from graphprog.errors import DataError


def read_unlabeled(paths: Sequence[Path], given: Columns, label: str | None = None) -> Examples:
    """Read examples of one kind.

    Args:
        paths: images, audio files, folders of them, ``.txt`` files with a text in each line,
            tables, or ``.npy`` files with an example in each row; ``-`` for lines of the input.
        given: columns of a table.
        label: column of a table that is not an input.

    Raises:
        DataError: a path is missing or of another kind than those before it.
    """
    parts = [_read(path, given, label) for path in paths]
    first = parts[0]
    for part, path in zip(parts, paths, strict=True):
        if part.kind != first.kind:
            raise DataError(f"{path} is {part.kind}, but {paths[0]} is {first.kind}")
    if len(parts) == 1:
        return require_some(first)
    inputs = [one for part in parts for one in part.inputs]
    rows = [row for part in parts for row in part.rows]
    return require_some(Examples(first.kind, inputs, place="inputs", rows=rows))


def _read(path: Path, given: Columns, label: str | None) -> Examples:
    suffix = path.suffix.lower()
    if str(path) == "-":
        texts = [line.strip() for line in sys.stdin]
        return _texts(texts, "line ", "input")
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder", ["check the path"])
    if suffix in TABLES:
        return read_table(str(path), given, label, labeled=False)
    if suffix == ".txt":
        return _texts(read_text(path).splitlines(), f"{path}:", str(path))
    if suffix == ".npy":
        array: Any = loaded(str(path))
        return Examples("array", array, place=str(path), rows=range(len(array)))
    if suffix not in SUFFIXES:
        known = ", ".join(sorted({*SUFFIXES, *TABLES}))
        raise DataError(f"{path}: a {suffix or 'file without suffix'} is not data", [known])
    return Examples(SUFFIXES[suffix], [path], place=str(path), rows=[path])


def _folder(path: Path) -> Examples:
    files = files_of(path)
    kinds = sorted({SUFFIXES[file.suffix.lower()] for file in files})
    if len(kinds) != 1:
        shown = f"files of several kinds: {', '.join(kinds)}" if kinds else "no data"
        raise DataError(f"{path}: holds {shown}")
    inputs = [read_text(file) for file in files] if kinds == ["text"] else files
    return Examples(kinds[0], inputs, place=str(path), rows=files)


def _texts(lines: Sequence[str], before: str, place: str) -> Examples:
    rows = [(f"{before}{number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    texts = [line for _, line in rows]
    return Examples("text", texts, place=place, rows=[row for row, _ in rows])
