"""What the outputs of a graph with a program depend on, and what lies behind its alignment."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping

from torch import fx

from graphprog.errors import InterfaceError
from graphprog.ir.graph import Graph, Insertion
from graphprog.ir.interface import Interface
from graphprog.ir.ops import ancestors

Parts = Callable[[fx.Node], Iterable[fx.Node]]
_CHANGES = ("value", "axis", "prefix")
_OPERANDS = operator.attrgetter("all_input_nodes")


def require_effect(graph: Graph, places: Mapping[str, Interface]) -> None:
    """Check that the outputs depend on the values at interfaces.

    Raises:
        InterfaceError: they do not, for example because an alignment reads what comes before.
    """
    ends = [node for node in graph.output_nodes if isinstance(node, fx.Node)]
    reach = {node.name for end in ends for node in ancestors(end)} | {"output"}
    lost = [
        name
        for name, place in places.items()
        if not any(edge.user in reach for edge in place.edges)
    ]
    if lost:
        raise _without_effect(graph, lost)


def require_acting(graph: Graph) -> None:
    """Check that the outputs depend on every value that a program changes.

    A later change may replace what they depend on, as when the values of all blocks are exchanged.

    Raises:
        InterfaceError: a change comes after what the alignment reads, or no output of the model
            depends on the value.
    """
    changes = [one for one in graph.insertions if one.kind in _CHANGES]
    before = {one.result: graph.nodes.get(one.original) for one in changes}

    def parts(node: fx.Node) -> list[fx.Node]:
        replaced = before.get(node.name)
        return node.all_input_nodes + ([] if replaced is None else [replaced])

    reach = _reaching(graph, parts)
    lost = {
        _named(graph, change.at): change.label or change.name
        for change in changes
        if not reach.intersection((change.result, graph.parts.get(change.name, "")))
    }
    if lost:
        labels = ", ".join(dict.fromkeys(lost.values()))
        raise _without_effect(graph, [*lost], f"{labels}: ")


def require_computed(graph: Graph, places: Mapping[str, Interface]) -> None:
    """Check that a model with a program computes the values at interfaces.

    Raises:
        InterfaceError: they come after what its alignment reads.
    """
    alignment = _alignment(graph)
    if alignment is None or graph.base is None:
        return
    own, used = _reaching(graph), _reaching(graph.base)
    sites = graph.base.sites
    lost = [
        name
        for name, place in places.items()
        if place.node not in own and place.key in sites and sites[place.key].node in used
    ]
    if lost:
        raise InterfaceError(
            f"the model does not compute {_listed(lost)}: its alignment reads "
            f"{_named(graph, alignment.at)}, which does not depend on it",
            [f"name interfaces up to {_named(graph, alignment.at)}", "read the source: task.base"],
        )


def _without_effect(graph: Graph, lost: list[str], what: str = "") -> InterfaceError:
    alignment = _alignment(graph)
    if alignment is None:
        return InterfaceError(
            f"{what}no output depends on {_listed(lost)}: the model does not use it, "
            "or a change after it replaces it",
            ["name an interface from which an output is computed: print(graph)"],
        )
    place = _named(graph, alignment.at)
    return InterfaceError(
        f"{what}no output depends on {_listed(lost)}: the program's alignment reads {place}, "
        "which comes before, or is computed without it",
        [f"name interfaces up to {place}", "align a later value: the at= of the alignment"],
    )


def _alignment(graph: Graph) -> Insertion | None:
    return next((one for one in graph.insertions if one.kind == "output"), None)


def _named(graph: Graph, key: str) -> str:
    """Return the alias of an interface, or its key."""
    return next((alias for alias, own in graph.aliases.items() if own == key), key)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


def _reaching(graph: Graph, parts: Parts = _OPERANDS) -> set[str]:
    """Return the nodes from which an output is computed, and what the alignment reads.

    It may read a layer's operands instead of its result.
    """
    ends = {node for node in graph.output_nodes if isinstance(node, fx.Node)}
    if (alignment := _alignment(graph)) is not None:
        ends.add(graph.nodes[alignment.original])
        if alignment.at in graph.sites:
            ends.add(graph.nodes[graph.sites[alignment.at].node])
    return {node.name for end in ends for node in ancestors(end, parts)}
