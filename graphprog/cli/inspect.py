"""``graphprog inspect``: what a model is, and where programs fit."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any

import typer

import graphprog as gp
from graphprog.cli.models import Model, NoCache, open_model
from graphprog.cli.tree import interface_tree
from graphprog.cli.why import why_text


def inspect(
    model: Model,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ir: Annotated[bool, typer.Option("--ir", help="Print every operation.")] = False,
    why: Annotated[
        str, typer.Option(metavar="INTERFACE", help="Say what fits at an interface, and why not.")
    ] = "",
    interfaces: Annotated[
        str, typer.Option(metavar="PATTERN", help="Only list interfaces, such as blocks.3.*")
    ] = "",
    no_cache: NoCache = False,
) -> None:
    """Show inputs, outputs, blocks and interfaces of a model, and which programs fit where."""
    graph = open_model(model, no_cache)
    if as_json:
        typer.echo(json.dumps(described(graph), indent=1, ensure_ascii=False))
    elif ir:
        typer.echo(graph.text)
    elif why:
        typer.echo(why_text(graph, why))
    elif interfaces:
        typer.echo(graph.interfaces(interfaces, verbose=True))
    else:
        typer.echo(f"{graph.summary()}\n{_hints(graph)}\n{interface_tree(graph)}")


def described(graph: gp.Graph) -> dict[str, Any]:
    """Return the summary of a graph, its hints and its interfaces, as JSON values."""
    found = dataclasses.asdict(graph.summary())
    table = graph.interfaces()
    places = [
        {
            "key": place.key,
            "kind": place.kind,
            "aliases": place.aliases,
            "type": place.type_text,
            "module": place.module,
            "uses": len(place.edges),
        }
        for place in table.values()
    ]
    fingerprint = dataclasses.asdict(graph.fingerprint)
    return {**found, "hints": dict(graph.hints), "fingerprint": fingerprint, "interfaces": places}


def _hints(graph: gp.Graph) -> str:
    """Return a line for each hint; long lists are cut."""
    lines = []
    for name, value in graph.hints.items():
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        lines.append(f"  {name:<14}  {shown if len(shown) <= 80 else shown[:79] + '…'}")
    return "\n".join(["", *lines, ""]) if lines else ""
