"""``graphprog show``: what a program file holds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from graphprog.utils.lazy import load


def show(
    program: Annotated[Path, typer.Argument(help="File that gp.save wrote.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the parts, tensors, source model, labels and training of a program's file.

    A terminal with colors also shows the patterns that are added to images.
    """
    summary = load("graphprog.io.file_summary:read_summary")(program)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(summary), indent=1, ensure_ascii=False))
    else:
        typer.echo(summary)
        console = Console()
        if console.is_terminal and console.color_system:
            tensors, _ = load("graphprog.io.artifact:read")(program)
            for text in load("graphprog.cli.use.thumbnail:thumbnails")(tensors):
                console.print(text)
