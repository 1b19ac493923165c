"""Interfaces inside attention: queries, keys, values, weights and heads."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from torch import fx

from graphprog.analysis.attention import ATTENTION, Attention
from graphprog.errors import InterfaceError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.interface import INSIDE, Interface
from graphprog.passes.attention.expose_layers import ExposeLayers, layers_named
from graphprog.passes.attention.mask import MaskBuilder
from graphprog.passes.attention.match_attention import attending
from graphprog.passes.attention.write_out import write_out
from graphprog.passes.base import Pass
from graphprog.rewriting.edges import uses_of
from graphprog.rewriting.editor import Editor
from graphprog.spec.checks import require_texts
from graphprog.spec.registry import spec

_OPS = torch.ops.aten
_OPERANDS = ("queries", "keys", "values")
_Site = TypeVar("_Site")


@spec("expose-attention")
@dataclasses.dataclass(frozen=True)
class ExposeAttention(Pass):
    """Make the queries, keys, values, weights or heads of attention interfaces.

    ``attention[3].queries``, ``.keys`` and ``.values`` are what the operation reads: [B, H, T, d],
    [B, h, S, d] and [B, h, S, e]. For ``attention[3].weights`` [B, H, T, S] the operation is
    written out, equal up to rounding; attention that is not named stays one operation.
    ``attention[3].heads[5]`` [B, T, e] is the result of one head. Instruments and
    :func:`graphprog.compile` run this pass where such names are used.

    Attributes:
        at: names of interfaces inside attention, such as ``attention[*].weights``.

    Example:
        >>> exposed = gp.passes.ExposeAttention(("attention[0].weights",))(language)
        >>> exposed.interfaces().resolve("attention[0].weights").shape
        ('B', 2, 'S', 'S')
    """

    at: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_texts(self.kind, "at", self.at)

    def run(self, graph: Graph) -> Graph:
        """Add the interfaces; attention written as single operations is fused first."""
        graph = _with_attention(graph, self.at)
        wanted: dict[str, set[str]] = {}
        for name in self.at:
            of, part = _split(name)
            for place in graph.interfaces().resolve_all(of):
                wanted.setdefault(place.key, set()).add(part.partition("[")[0])
        edit = Editor(graph, str(self))
        aliases = dict(graph.aliases)
        for key, parts in wanted.items():
            place = graph.interfaces()[key]
            for part in _expose(edit, place, parts):
                aliases |= {f"{alias}.{part}": f"{key}.{part}" for alias in place.aliases}
        edit.changes["aliases"] = aliases
        edit.sites = _in_data_flow_order(edit.sites)
        return edit.finish()


def exposed(graph: Graph, names: Iterable[str]) -> Graph:
    """Return a graph that has the interfaces inside attention, and at layers, among some names.

    The graph keeps it for the next call.

    Raises:
        InterfaceError: a name is inside something that is not attention, or there is no such layer.
    """
    names = tuple(names)
    if layers := layers_named(graph, names):
        exposing = ExposeLayers(layers)
        graph = graph.kept((ExposeLayers, layers), lambda: exposing(graph))
    inside = inside_attention(graph, names)
    if not inside:
        return graph
    return graph.kept((ExposeAttention, inside), lambda: ExposeAttention(inside)(graph))


def inside_attention(graph: Graph, names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of values inside attention that are not interfaces of a graph yet."""
    known = {*graph.sites, *graph.aliases}
    fresh = [name for name in names if INSIDE.fullmatch(name) and name not in known]
    return tuple(dict.fromkeys(name for name in fresh if not _names_module(graph, name)))


def _names_module(graph: Graph, name: str) -> bool:
    """Whether a name is that of a module, whose interfaces an error then lists."""
    return any(key.startswith(f"{name}:") for key in graph.sites)


def _split(name: str) -> tuple[str, str]:
    """Return the attention and the part of it that a name means.

    Raises:
        InterfaceError: it names no part of attention.
    """
    match = INSIDE.fullmatch(name)
    if match is None:
        raise InterfaceError(
            f"{name!r} does not name a value inside attention",
            [f"attention[3].{part}" for part in (*_OPERANDS, "weights", "heads[5]")],
        )
    return match["of"], match["part"]


def _with_attention(graph: Graph, names: Iterable[str]) -> Graph:
    """Return the graph, with attention as single operations where names need it.

    Raises:
        InterfaceError: there is no attention at such a place.
    """
    places = [_split(name)[0] for name in names]
    with contextlib.suppress(InterfaceError):
        for place in places:
            graph.interfaces().resolve_all(place)
        return graph
    return attending(graph, places)


def _expose(edit: Editor, place: Interface, wanted: set[str]) -> list[str]:
    """Add the interfaces of one attention; returns the names of new ones within it."""
    node = _operation(edit, place)
    written = f"{place.key}.weights" in edit.sites
    if node.target is not ATTENTION and not written:
        raise InterfaceError(
            f"{place.key!r} is not the result of attention, so it has no "
            f"{', '.join(sorted(wanted))}",
            ["print(graph.interfaces('attention[*]')) shows the results of attention"],
        )
    found: list[str] = []
    if not written and f"{place.key}.queries" not in edit.sites:
        for slot, part in enumerate(_OPERANDS):
            operand = Attention(node).argument(slot)
            edit.add_site(f"{place.key}.{part}", operand, edges={(node, slot)})
            found.append(part)
    if not written and "weights" in wanted:
        edit.add_site(f"{place.key}.weights", write_out(edit, Attention(node)))
        found.append("weights")
    if "heads" in wanted and f"{place.key}.heads[0]" not in edit.sites:
        found += _separate(edit, place.key, node)
    return found


def _operation(edit: Editor, place: Interface) -> fx.Node:
    """Return the operation behind changes of its result by programs, and separate heads."""
    changed = {one.result: one.original for one in edit.graph.insertions if one.kind == "value"}
    node = edit.node(place.node)
    while True:
        if node.name in changed:
            node = edit.node(changed[node.name])
        elif node.target is _OPS.stack.default:
            node = node.args[0][0]  # type: ignore[index, assignment]
        elif node.target is _OPS.select.int:
            node = node.args[0]  # type: ignore[assignment]
        else:
            return node


def _separate(edit: Editor, key: str, node: fx.Node) -> list[str]:
    """Add an interface for each head of a result [B, H, T, e]; returns their names."""
    shape = fake_tensor(node).shape
    if len(shape) != 4 or not isinstance(shape[1], int):
        raise InterfaceError(
            f"the heads of {key!r} are not an axis of its value {list(shape)}",
            [f'read the whole value: at="{key}"'],
        )
    readers = set(uses_of(node))
    put = MaskBuilder(edit, min(user for user, _ in readers), {}).put
    heads = [put(_OPS.select.int, node, 1, head) for head in range(shape[1])]
    edit.redirect(node, readers, put(_OPS.stack.default, heads, 1), set())
    for number, head in enumerate(heads):
        edit.add_site(f"{key}.heads[{number}]", head)
    return [f"heads[{number}]" for number in range(shape[1])]


def _in_data_flow_order(sites: Mapping[str, _Site]) -> dict[str, _Site]:
    """Return sites with those inside attention before its result."""
    rank = {key: number for number, key in enumerate(sites)}

    def place(key: str) -> tuple[int, bool, int]:
        match = INSIDE.fullmatch(key)
        inside = match is not None and match["of"] in rank
        return rank[match["of"] if match and inside else key], not inside, rank[key]

    return {key: sites[key] for key in sorted(sites, key=place)}
