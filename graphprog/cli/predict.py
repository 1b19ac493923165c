"""``graphprog predict``: the labels that an ONNX file gives to arrays."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import graphprog as gp
from graphprog.errors import DataError, FileError
from graphprog.utils.columns import columns

_HEAD = ("row", "label", "probability")


def predict(
    file: Annotated[Path, typer.Argument(help="ONNX file that graphprog wrote.")],
    inputs: Annotated[Path, typer.Argument(help="Rows: .npy, or .npz with an array per input.")],
    program: Annotated[
        Path | None, typer.Option(help="Program to use in place of that of the file.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
) -> None:
    """Print the most probable label of every row, and its probability."""
    if form not in ("table", "csv", "json"):
        raise DataError(f"there is no format {form!r}", ["--format table, csv or json"])
    session = gp.backends.onnxruntime.Session(file)
    if program is not None:
        session.add("program", program)
    rows, named = _read(inputs)
    name = None if program is None else "program"
    found = session.predict(*rows, **named, program=name, probabilities=True)
    if form == "json":
        typer.echo(json.dumps(found, ensure_ascii=False, indent=1))
        return
    best = [(str(n), *max(row.items(), key=lambda pair: pair[1])) for n, row in enumerate(found)]
    if form == "csv":
        csv.writer(sys.stdout).writerows([_HEAD, *best])
    else:
        shown = [(number, label, f"{share:.3f}") for number, label, share in best]
        typer.echo("\n".join(columns(shown, _HEAD)))


def _read(path: Path) -> tuple[list[Any], dict[str, Any]]:
    """Read arrays by position or by name; nothing that is pickled.

    Raises:
        FileError: there is no such file, or it holds something else.
    """
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return [found], {}
        with found:
            return [], {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError) as error:
        raise FileError(f"{path}: not a file of arrays: {error}") from error
