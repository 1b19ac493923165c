"""``graphprog diff``: the operations in which two models differ, or the text of two programs."""

from __future__ import annotations

import difflib
from typing import Annotated

import typer

from graphprog.cli.models import NoCache, open_model
from graphprog.utils.lazy import load

One = Annotated[str, typer.Argument(help="Model, or a program's .safetensors file.")]


def diff(a: One, b: One, no_cache: NoCache = False) -> None:
    """Show what differs between two models, or between two programs; exit code 1 if anything."""
    text = _of_programs(a, b) if _is_program(a) and _is_program(b) else _of_models(a, b, no_cache)
    if text:
        typer.echo(text)
        raise typer.Exit(1)


def _is_program(name: str) -> bool:
    return name.endswith(".safetensors")


def _of_models(a: str, b: str, no_cache: bool) -> str:
    return open_model(a, no_cache).diff(open_model(b, no_cache))


def _of_programs(a: str, b: str) -> str:
    read = load("graphprog.io.file_summary:read_summary")
    one, other = (str(read(name)).splitlines() for name in (a, b))
    return "\n".join(difflib.unified_diff(one, other, a, b, lineterm=""))
