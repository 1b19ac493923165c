"""Interfaces of a graph at which PEFT acts, by its module names."""

from __future__ import annotations

import difflib

from graphprog.errors import FileError, InterfaceError
from graphprog.ir.graph import Graph
from graphprog.ir.printing import module_path

ENCODER_IDS, DECODER_IDS = "input_ids", "decoder_input_ids"


def tokens_of(graph: Graph, ids: str = ENCODER_IDS) -> str:
    """Find the interface after the embedding module of an input's ids.

    It comes after everything that the module computes, such as scaling.

    Raises:
        InterfaceError: no input is embedded, or several are and none is called ``ids``.
    """
    table = graph.interfaces()
    qualified = f"{ids}.tokens"
    place = table.resolve(qualified if qualified in graph.aliases else "tokens")
    key = f"{module_path(graph.nodes[place.node])}:out"
    return key if key in table else place.key


def module_key(graph: Graph, path: str, end: str, name: str) -> str:
    """Find the interface at one end of a module, ``in`` or ``out``.

    Raises:
        FileError: the graph has no such module, or calls it several times.
    """
    table, wanted = graph.interfaces(), f"{path}:{end}"
    keys = [key for key in table if key == wanted]
    keys = keys or [key for key in table if key.endswith(f".{wanted}")]  # in another module
    if len(keys) == 1:
        module = keys[0].removesuffix(f":{end}")
        if f"{module}@1:{end}" in table:
            raise FileError(
                f"{name}: the graph calls {module!r} several times, but a part of a program acts "
                "on one call"
            )
        return keys[0]
    near = difflib.get_close_matches(wanted, table, n=4, cutoff=0.4)
    raise FileError(
        f"{name}: the graph has no interface {wanted!r}",
        [
            *([f"check the nearest names: {', '.join(near)}"] if near else []),
            "capture the model that was trained, with the same class and task",
        ],
    )


def same_place(graph: Graph, one: str, other: str) -> bool:
    """Whether two interfaces are the same value with the same uses."""
    try:
        places = [graph.interfaces().resolve(name) for name in (one, other)]
    except InterfaceError:
        return False
    return places[0].node == places[1].node and set(places[0].edges) == set(places[1].edges)
