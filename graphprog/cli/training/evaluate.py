"""``graphprog evaluate``: what a trained program is worth on held-out data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from graphprog.cli.models import NoCache
from graphprog.utils.lazy import load

Run = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder that train wrote, or its configuration.")
]


def evaluate(
    run: Run,
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    data: Annotated[
        str | None, typer.Option(metavar="NAME", help="Other labeled data, as in data.train.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="By default as trained.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    no_cache: NoCache = False,
) -> None:
    """Measure loss, accuracy and metrics of a trained program on the test data."""
    running = "graphprog.cli.training.running:run_evaluation"
    found = load(running)(run, split, data, batch_size, no_cache)
    if not load("graphprog.cli.training.run_folder:is_main_process")():
        return
    if not as_json:
        typer.echo(found)
        return
    accuracy = found.accuracy if found.accuracy == found.accuracy else None
    values = {
        "loss": found.loss,
        "accuracy": accuracy,
        "count": found.count,
        "metrics": dict(found.metrics),
        "labels": list(found.labels),
        "confusion": found.confusion.tolist(),
    }
    typer.echo(json.dumps(values, indent=1, ensure_ascii=False))
