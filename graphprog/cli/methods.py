"""``graphprog methods``: the published methods that can be used by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

import graphprog as gp
from graphprog.errors import ProgramError

methods = typer.Typer(help="List published methods, or show one.", invoke_without_command=True)


@methods.callback()
def every(context: typer.Context) -> None:
    """List published methods, or show one: methods show vpt-deep."""
    if context.invoked_subcommand is None:
        names = {name: _summary(found_method(name)) for name in gp.methods.__all__}
        width = max(map(len, names))
        for name, text in names.items():
            typer.echo(f"{name.replace('_', '-'):<{width}}  {text}")


@methods.command()
def show(name: Annotated[str, typer.Argument(help="Name of a method, such as vpt-deep.")]) -> None:
    """Show the options, the paper, the coordinates in the survey and an example of a method."""
    method = found_method(name)
    options = ", ".join(
        one.name if one.default is one.empty else f"{one.name}={one.default!r}"
        for one in inspect.signature(method).parameters.values()
    )
    record = gp.methods.table()[method.__name__]
    names = ("configuration", "location", "operator", "alignment")
    where = ", ".join(getattr(record, one) for one in names)
    paper = f"{record.paper}, {record.venue}: {where}\ntrained: {record.parameters}"
    typer.echo(f"gp.methods.{method.__name__}({options})\n{paper}\n\n{inspect.getdoc(method)}")


def found_method(name: str) -> Callable[..., Any]:
    """Return a method by its name, with hyphens or underscores.

    Raises:
        ProgramError: there is no such method; suggests the nearest.
    """
    known = gp.methods.__all__
    word = name.replace("-", "_")
    if word not in known:
        near = [one for one in known if word in one] or difflib.get_close_matches(word, known)
        shown = ", ".join(one.replace("_", "-") for one in near or known)
        raise ProgramError(f"there is no method {name!r}", [f"one of {shown}"])
    method: Callable[..., Any] = getattr(gp.methods, word)
    return method


def _summary(method: Callable[..., Any]) -> str:
    first = (inspect.getdoc(method) or "").partition("\n\n")[0].replace("\n", " ")
    return first.partition(": ")[0].removesuffix(".")
