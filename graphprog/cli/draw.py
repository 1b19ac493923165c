"""``graphprog draw``: a model, with or without a program, as a page for a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import graphprog as gp
from graphprog.cli.models import Model, NoCache, open_model
from graphprog.errors import FileError
from graphprog.utils.lazy import load


def draw(
    model: Model,
    program: Annotated[
        Path | None, typer.Argument(help="Program that gp.save wrote, to draw in the model.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write: one page without network.")
    ] = Path("graph.html"),
    beside: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Another model to compare with.")
    ] = None,
    passes: Annotated[
        str, typer.Option(metavar="TEXT", help="Passes to run; the graph after each is shown.")
    ] = "",
    capture_passes: Annotated[
        bool, typer.Option("--capture-passes", help="Capture anew; show what each pass did.")
    ] = False,
    no_cache: NoCache = False,
) -> None:
    """Draw a model, with or without a program, as a page for a browser."""
    given = [program is not None, bool(passes), capture_passes]
    if sum(given) > 1 or (beside is not None and any(given[1:])):
        raise FileError(
            f"{output}: a page shows a program, passes, or the passes of the capture",
            ["give one of PROGRAM, --passes and --capture-passes; --beside with PROGRAM or alone"],
        )
    other = None if beside is None else open_model(beside, no_cache)
    if capture_passes:
        written = _captured(model, output)
    else:
        graph = open_model(model, no_cache)
        if passes:
            written = _rewritten(graph, passes, output)
        else:
            drawn = graph if program is None else gp.load(program, graph)
            written = drawn.draw(output, beside=other)
    typer.echo(written)


def _rewritten(graph: gp.Graph, passes: str, output: Path) -> Path:
    stages = [("source", graph)]
    pipeline = gp.passes.Pipeline.parse(passes)
    pipeline.requires(graph)
    for item in pipeline.passes:
        graph = item(graph)
        stages.append((str(item), graph))
    return _written(output, stages)


def _captured(model: str, output: Path) -> Path:
    """Write the graphs before and after the passes of a capture that changed something."""
    stages: list[tuple[str, gp.Graph]] = []

    def keep(item: gp.passes.Pass, before: gp.Graph, after: gp.Graph) -> None:
        stages.extend([] if stages else [("as traced", before)])
        if after.text != stages[-1][1].text:
            stages.append((str(item), after))

    with load("graphprog.passes.base:watching")(keep):
        graph = open_model(model, no_cache=True)
    return _written(output, [*stages[:-1], (stages[-1][0], graph)])


def _written(output: Path, stages: list[tuple[str, gp.Graph]]) -> Path:
    stage, write = load("graphprog.ir.drawing.document:Stage"), load("graphprog.ir.drawing.page")
    written: Path = write.write_page(output, [stage(*one) for one in stages])
    return written
