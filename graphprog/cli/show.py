"""``graphprog show``: what a program file holds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from graphprog.utils.lazy import load


def show(
    program: Annotated[Path, typer.Argument(help="File that gp.save wrote.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the parts, tensors, source model, labels and training of a program's file."""
    summary = load("graphprog.io.file_summary:read_summary")(program)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(summary), indent=1, ensure_ascii=False))
    else:
        typer.echo(summary)
