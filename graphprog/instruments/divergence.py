"""Where two models first compute something else, by halving what a wrong output depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from graphprog.errors import InterfaceError
from graphprog.instruments.compare import compare_values
from graphprog.instruments.places import Inputs, Model, flat_inputs, graph_of
from graphprog.ir.graph import Graph
from graphprog.ir.ops import ancestors

TOLERANCE = 1e-4
"""Largest difference that counts as equal, absolute or relative to the largest magnitude."""


def first_divergence(
    first: Model, second: Model, inputs: Inputs, *, tolerance: float = TOLERANCE
) -> str | None:
    """Find the first interface at which two models compute something else.

    It reads about log2 as many interfaces as both have. See :func:`first_that_differs`.

    Args:
        first: a graph or compiled model.
        second: likewise; interfaces that both have are compared.
        inputs: inputs of both, in order or by name.
        tolerance: absolute, or relative to the largest magnitude.

    Returns:
        Key of the interface, in the first model; None if no output differs.

    Raises:
        DataError: the inputs do not fit.
        InterfaceError: the models have no output in common.

    Example:
        >>> task = gp.compile(graph, gp.Program([gp.Additive(value=gp.Learnable("ones"))]))
        >>> gp.instruments.first_divergence(graph, task, images)
        'stem:out'
    """
    one, other = graph_of(first), graph_of(second)
    table = other.interfaces()
    keys: dict[str, list[str]] = {}
    for key, place in one.interfaces().items():
        if key in table:
            keys.setdefault(place.node, []).append(key)
    given = [flat_inputs(graph, inputs) for graph in (one, other)]
    ends = [node.name for node in one.output_nodes if node.name in keys]
    if not ends:
        raise InterfaceError("the models have no output in common", ["gp.compare(..., at=[...])"])

    def differing(node: str) -> list[str]:
        """Return the interfaces of a node that differ; a program may change some of its uses."""
        value = one.evaluate(keys[node][:1], given[0])[keys[node][0]]
        values = other.evaluate(keys[node], given[1])
        return [
            key
            for key, found in values.items()
            if not compare_values(key, value, found).within(tolerance)
        ]

    found = first_that_differs(one, lambda node: bool(differing(node)), ends, keys)
    if found is None:
        return None
    return min(differing(found), key=lambda key: not key.endswith(":out"))


def first_that_differs(
    graph: Graph, differs: Callable[[str], bool], ends: Iterable[str], known: Iterable[str]
) -> str | None:
    """Return the first node, in the order of data flow, whose value differs elsewhere.

    A node that agrees clears all that it depends on, one that differs leaves only these to suspect.
    So about log2 of the nodes are asked for, across branches too. An error that dies out on its way
    to every node after it is not found.

    Args:
        graph: the reference.
        differs: whether the value of a node differs; asked for one node at a time.
        ends: names of the outputs.
        known: names of the nodes that may be asked for.

    Returns:
        Name of a node that differs while every known node it depends on agrees; None if no output
        differs.
    """
    asked = set(known)
    wrong = next((node for node in ends if differs(node)), None)
    if wrong is None:
        return None
    suspects = _before(graph, wrong, asked)
    while suspects:
        middle = suspects[len(suspects) // 2]
        before = _before(graph, middle, asked)
        if differs(middle):
            wrong, suspects = middle, [node for node in suspects if node in before]
        else:
            suspects = [node for node in suspects if node != middle and node not in before]
    return wrong


def keys_of_nodes(graph: Graph) -> dict[str, str]:
    """Return the key of each node that an interface names: that of the module which computes it."""
    keys: dict[str, str] = {}
    for key, interface in graph.interfaces().items():
        made_here = key.endswith(":out") or key.startswith("output:")
        if interface.node not in keys or (made_here and not keys[interface.node].endswith(":out")):
            keys[interface.node] = key
    return keys


def _before(graph: Graph, name: str, known: set[str]) -> list[str]:
    """Return what a node depends on, in graph order, without inputs, which cannot differ."""
    found = ancestors(graph.nodes[name])[1:]
    return [node.name for node in sorted(found) if node.name in known and node.op != "placeholder"]
