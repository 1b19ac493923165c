"""What fits at an interface: each kind of program is compiled there, on trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import graphprog as gp
from graphprog.errors import GraphprogError
from graphprog.utils.lazy import load

_INSERTED = "concatenative"

TRIALS: dict[str, Callable[[gp.Interface], gp.Program]] = {
    "additive": lambda place: gp.Program((gp.Additive(at=place.key),)),
    "scale": lambda place: gp.Program((gp.Scale(at=place.key),)),
    "replacement": lambda place: gp.Program((gp.Replacement(at=place.key, length=1),)),
    "prefix": lambda place: gp.Program((gp.Prefix(at=place.key, length=2),)),
    "linear head": lambda place: _pooled(place),
    "label mapping": lambda place: gp.Program((), align=gp.FixedMap(classes=2, at=place.key)),
}
"""A small program of each kind, at an interface; entries are inserted on one axis after another."""


def why_text(graph: gp.Graph, name: str) -> str:
    """Describe an interface, and say of every kind of program whether it compiles there.

    Raises:
        InterfaceError: there is no such interface.
    """
    place = graph.interfaces().resolve(name)
    aliases = f", alias {', '.join(place.aliases)}" if place.aliases else ""
    module = f", of {place.module}" if place.module else ""
    lines = [
        f"{place.key}{aliases}: {place.type_text}{module}",
        f"  computed by {_operation(graph, place.node)}",
        *(f"  read by {_operation(graph, user)}" for user in _readers(place)),
        "",
    ]
    width = max(map(len, (*TRIALS, _INSERTED)))
    verdicts = {kind: _verdict(graph, program(place)) for kind, program in TRIALS.items()}
    verdicts[_INSERTED] = _inserted(graph, place)
    for kind, (first, *rest) in verdicts.items():
        lines += [f"  {kind:<{width}}  {first}", *(f"  {'':<{width}}  {line}" for line in rest)]
    return "\n".join(lines)


def _readers(place: gp.Interface) -> list[str]:
    return list(dict.fromkeys(edge.user for edge in place.edges))


def _operation(graph: gp.Graph, name: str) -> str:
    """Return the operation of a node, and its module."""
    node = graph.nodes[name]
    if node.op != "call_function":
        return "the caller" if node.op == "placeholder" else "the caller, as a result"
    operator_name, module_path = (
        load(f"graphprog.ir.printing:{one}") for one in ("operator_name", "module_path")
    )
    where = module_path(node)
    return f"{operator_name(node)} in {where}" if where else str(operator_name(node))


def _inserted(graph: gp.Graph, place: gp.Interface) -> list[str]:
    """Return the verdict on inserted entries: the axes that take them, or why none does."""
    found = ["no: a value of one axis has no entries"]
    fitting = []
    for axis in range(1, len(place.shape)):
        part = gp.Concatenative(at=place.key, length=2, axis=axis)
        found = _verdict(graph, gp.Program((part,)))
        if found[0].startswith("yes, "):
            fitting.append(f"axis {axis} ({found[0].removeprefix('yes, ')})")
    return [f"yes, on {' or '.join(fitting)}"] if fitting else found


def _pooled(place: gp.Interface) -> gp.Program:
    pool: Literal["mean", "none"] = "mean" if len(place.shape) > 2 else "none"
    return gp.Program((), align=gp.LinearHead(classes=2, at=place.key, pool=pool))


def _verdict(graph: gp.Graph, program: gp.Program) -> list[str]:
    try:
        task = gp.compile(graph, program)
    except GraphprogError as error:
        return [f"no: {error.what.splitlines()[0]}", *(f"try: {one}" for one in error.remedies[:1])]
    return [f"yes, {task.trained_parameters():,} parameters"]
