"""``graphprog export``: a model, with or without a program, as an ONNX or ``.pt2`` file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import graphprog as gp
from graphprog.cli.models import Model, NoCache, open_model
from graphprog.errors import BackendError


def export(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: .onnx or .pt2.")],
    program: Annotated[
        Path | None, typer.Option(help="Program that gp.save wrote; without it, the model alone.")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="folded, overridable, inputs, per_row, or training (a step).")
    ] = "folded",
    opset: Annotated[int | None, typer.Option(help="Version of ONNX's operators.")] = None,
    returned: Annotated[
        list[str] | None,
        typer.Option("--return", metavar="INTERFACE", help="Value to return; may be repeated."),
    ] = None,
    no_cache: NoCache = False,
) -> None:
    """Export a model with a program, and compare the file with PyTorch."""
    options: dict[str, Any] = {"program": mode, "opset": opset, "outputs": returned}
    exporters = {".onnx": gp.backends.onnx.export, ".pt2": gp.backends.pytorch.export}
    if output.suffix not in exporters:
        raise BackendError(f"{output}: the name ends in neither .onnx nor .pt2")
    if output.suffix == ".pt2":
        if mode != "folded" or opset or returned:
            raise BackendError(f"{output}: --mode, --opset and --return are for .onnx files")
        options = {}
    if mode == "training":
        if returned or program is None:
            raise BackendError(f"{output}: a training step needs --program, and takes no --return")
        task = gp.load(program, open_model(model, no_cache))
        typer.echo(gp.backends.onnxruntime.export_training(task, output, opset=opset))
        return
    graph = open_model(model, no_cache)
    task = gp.compile(graph, gp.Program()) if program is None else gp.load(program, graph)
    typer.echo(exporters[output.suffix](task, output, **options))
