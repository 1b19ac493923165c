"""``graphprog predict``: the labels of images, texts, tables, audio files or arrays."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from graphprog.cli.models import NoCache
from graphprog.errors import DataError
from graphprog.utils.columns import columns
from graphprog.utils.lazy import load


def predict(
    task: Annotated[Path, typer.Argument(help="ONNX file, or the folder that train wrote.")],
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="Images, audio files, folders of them, .txt (a text in each line), .csv, .tsv, "
            ".jsonl, .npy, .npz with an array per input, or - for lines of text."
        ),
    ],
    program: Annotated[
        Path | None, typer.Option(help="Program to use in place of that of the task.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
    column: Annotated[
        list[str] | None, typer.Option(help="Column of a table to read; may be repeated.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples computed together.")] = 64,
    tokenizer: Annotated[
        str, typer.Option(help="Of an .onnx file: a folder or name of transformers.")
    ] = "",
    sample_rate: Annotated[
        int | None, typer.Option(min=1, help="Of an .onnx file that takes waveforms.")
    ] = None,
    no_cache: NoCache = False,
) -> None:
    """Print the most probable label of every example, and its probability."""
    if form not in ("table", "csv", "json"):
        raise DataError(f"there is no format {form!r}", ["--format table, csv or json"])
    given = load("graphprog.cli.use.labelers:Inputs")(
        inputs, column or [], batch_size, tokenizer, sample_rate
    )
    answered = load("graphprog.cli.use.labelers:answered")(task, program, given, no_cache)
    _PRINTERS[form](answered)


Answered = Iterable[tuple[str, Mapping[str, float]]]


def _table(answered: Answered) -> None:
    rows = [*answered]
    shown = [_cells(row, answer, "{:.3f}" if len(answer) > 1 else "{:g}") for row, answer in rows]
    typer.echo("\n".join(columns(shown, _head(rows[0][1]))))


def _csv(answered: Answered) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for number, (row, answer) in enumerate(answered):
        if not number:
            writer.writerow(_head(answer))
        writer.writerow(_cells(row, answer, "{!r}"))


def _json(answered: Answered) -> None:
    rows = [
        {"row": row, **answer}
        if _is_number(answer)
        else {"row": row, "label": next(iter(answer)), "probabilities": answer}
        for row, answer in answered
    ]
    typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))


_PRINTERS = {"table": _table, "csv": _csv, "json": _json}


def _is_number(answer: Mapping[str, float]) -> bool:
    return answer.keys() == {"value"}


def _head(answer: Mapping[str, float]) -> tuple[str, ...]:
    return ("row", "value") if _is_number(answer) else ("row", "label", "probability")


def _cells(row: str, answer: Mapping[str, float], shown: str) -> tuple[str, ...]:
    label, number = max(answer.items(), key=lambda pair: pair[1])
    text = shown.format(number)
    return (row, text) if _is_number(answer) else (row, label, text)
