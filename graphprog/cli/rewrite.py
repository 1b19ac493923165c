"""``graphprog rewrite``: run passes on a model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

import graphprog as gp
from graphprog.cli.models import Model, NoCache, open_model


def rewrite(
    model: Model,
    passes: Annotated[
        str, typer.Option(metavar="TEXT", help='Passes in order: "fold-batch-norm ; drop-copies".')
    ],
    print_after: Annotated[
        bool, typer.Option("--print-after", help="Print the graph after every pass.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the result to a .graph file.")
    ] = None,
    no_cache: NoCache = False,
) -> None:
    """Run passes on a model; show what each changed, and its time."""
    pipeline = gp.passes.Pipeline.parse(passes)
    pipeline.requires(graph := open_model(model, no_cache))
    for item in pipeline.passes:
        started = time.perf_counter()
        before, graph = graph, item(graph)
        spent = 1000 * (time.perf_counter() - started)
        typer.echo(f"== {item}  ({spent:.1f} ms)")
        if print_after:
            typer.echo(graph.text)
        else:
            typer.echo(before.diff(graph) or "changed nothing")
    if output is not None:
        graph.save(output)
