"""Reachability: what depends on a value, and which other activations there are."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import fx

from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import ancestors, schema_name, sources_of
from graphprog.rewriting.edges import Slot, leaves_of

_MULTIPLIES = ("aten::linear", "aten::conv", "aten::addmm", "aten::mm", "aten::matmul")


class Reachability:
    """The parts into which some uses of a value divide a graph.

    Attributes:
        after: nodes that depend on the edges, in graph order, up to the ends.
        after_end: nodes that depend on the end edges.
        activations: other nodes computed from the same data as the value: from a float input, or
            from rows looked up by an integer input. Unlike masks and positions, they cannot be
            recomputed at another length.
    """

    def __init__(
        self,
        code: fx.Graph,
        value: fx.Node,
        edges: Iterable[Slot],
        sides: Collection[str],
        ends: Iterable[Slot] = (),
        recomputable: bool = False,
    ) -> None:
        self.after_end = tuple(_closure(code, {user for user, _ in ends}, sizes=True))
        starts = {user for user, slot in edges if leaves_of(user)[slot] in sources_of(user)}
        after = _closure(code, starts, sizes=True)
        for node in self.after_end:
            after.pop(node, None)
        self.after = tuple(after)
        self._after = frozenset(after)
        inputs = set(code.find_nodes(op="placeholder"))
        fed = inputs | set(_closure(code, inputs))
        found = ancestors(value)
        data = {
            node
            for node in found
            if node in fed and node.target not in sides and (_is_data(node) or node is value)
        }
        if recomputable:
            data = {node for node in data if node.op == "placeholder"}
        beside = set() if recomputable else set(_closure(code, data))
        self.activations = frozenset(data | beside) - self._after

    def __contains__(self, node: object) -> bool:
        return node in self._after


def _is_data(node: fx.Node) -> bool:
    """Whether activations begin here: a float input, or a lookup in a table of weights."""
    if node.op == "placeholder":
        return bool(fake_tensor(node).is_floating_point())
    looks_up = schema_name(node) in ("aten::embedding", "aten::embedding_bag", "aten::index")
    table = node.args[0] if looks_up else None
    return isinstance(table, fx.Node) and table.op == "get_attr"


def tower_inputs(node: fx.Node) -> frozenset[str]:
    """Return the inputs of a value that is computed from data by weights.

    Empty for any other value, such as a mask or positions.
    """
    inputs = _inputs(ancestors(node))
    transformed = (
        part
        for part in ancestors(node)
        if schema_name(part).startswith(_MULTIPLIES)
        and any(operand.op == "get_attr" for operand in part.all_input_nodes)
    )
    return inputs if any(_inputs(ancestors(part)) for part in transformed) else frozenset()


def _inputs(nodes: Iterable[fx.Node]) -> frozenset[str]:
    return frozenset(str(node.target) for node in nodes if node.op == "placeholder")


def _closure(code: fx.Graph, starts: set[fx.Node], sizes: bool = False) -> dict[fx.Node, None]:
    """Return some nodes that are not inputs, and all nodes that depend on them.

    Args:
        code: the graph.
        starts: the nodes to begin with.
        sizes: whether a node that depends only on the length of a value depends on the value.
    """
    found: dict[fx.Node, None] = {}
    for node in code.nodes:
        if not sizes and not isinstance(node.meta.get("val"), torch.Tensor | list | tuple):
            continue
        started = node in starts and node.op != "placeholder"
        if started or any(part in found or part in starts for part in sources_of(node)):
            found[node] = None
    return found
