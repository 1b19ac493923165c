"""Values that do not depend on data: constants, numbers, and integers that count entries."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphprog.ir.dependence.classes import WEIGHTS
from graphprog.ir.execution import executable
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.ops import CASTS, VIEWS, ancestors, schema_name, values_of
from graphprog.ir.sizes import is_symbolic

_COPIES = CASTS | VIEWS | {"aten::unsqueeze", "aten::lift_fresh_copy"}
_VIEWS = frozenset(
    f"aten::{name}"
    for name in (
        *("permute", "transpose", "t", "unsqueeze", "squeeze", "select", "slice", "narrow"),
        *("expand", "view", "alias", "detach", "numpy_T", "mT", "movedim", "swapaxes"),
    )
)
"""Operations that never copy."""
_MOVES = _VIEWS | VIEWS | CASTS | {"aten::lift_fresh_copy", "aten::expand_as"}
"""Operations that copy entries as they are, at most into another dtype."""
_EMPTY = frozenset(f"aten::{name}" for name in ("empty", "new_empty", "empty_like"))


def number_in(value: Any) -> float | None:
    """Return a number, or the number that fills a value; None if it is not one."""
    if isinstance(value, int | float):
        return float(value)
    if not isinstance(value, fx.Node):
        return None
    filled = {"aten::full": 1, "aten::full_like": 1, "aten::scalar_tensor": 0}
    if (name := schema_name(value)) in filled:
        return number_in(value.args[filled[name]])
    if name in ("aten::zeros", "aten::zeros_like", "aten::ones", "aten::ones_like"):
        return float("ones" in name)
    return number_in(value.args[0]) if name in _COPIES else None


def is_constant(node: Any) -> bool:
    """Whether a value does not depend on the values of inputs."""
    parts = ancestors(node, values_of) if isinstance(node, fx.Node) else []
    return not any(part.op == "placeholder" for part in parts)


def counts_entries(position: fx.Node) -> bool:
    """Whether integers count entries and are not data."""
    stack = [position]
    while stack:
        node = stack.pop()
        if node.op in ("placeholder", "get_attr"):
            return False
        stack += [
            part for part in node.all_input_nodes if isinstance(fake_tensor(part), torch.Tensor)
        ]
    return True


def constants_of(graph: Graph) -> set[fx.Node]:
    """Return the operations and tensors that are the same for all inputs, in training, too.

    Neither inputs, nor their sizes, nor what training changes decide them.
    """
    classes = graph.explain().classes
    modes = {name for mode in graph.modes for name in mode.nodes}
    found: set[fx.Node] = set()
    for node in graph.code.nodes:
        fixed = node.op in ("get_attr", "call_function") and classes[node] <= {WEIGHTS}
        fixed = fixed and node.name not in modes and schema_name(node) not in _EMPTY
        if fixed and found.issuperset(node.all_input_nodes) and not _varies(node.meta.get("val")):
            found.add(node)
    return found


def computed_constants(graph: Graph, nodes: Sequence[fx.Node]) -> tuple[torch.Tensor, ...]:
    """Compute nodes that depend on no input, where the weights are."""
    run = executable(graph.code, graph.weights, nodes, graph.device)
    with torch.no_grad():
        found: tuple[torch.Tensor, ...] = run(*[None] * len(graph.placeholders))
    return found


def stored_constants(graph: Graph, limit: int) -> list[fx.Node]:
    """Return the values to compute once, in the order of the code.

    They are those at which constant computations end. A copy of a weight in another shape or dtype
    is not stored; the smaller ones are, if not all fit.

    Args:
        graph: the graph.
        limit: bytes of all stored values together.
    """
    constants = constants_of(graph)
    ends = {_before_views(end) for end in _ends(graph, constants)}
    worth = [node for node in graph.code.nodes if node in ends and not _is_moved(node)]
    chosen: set[fx.Node] = set()
    left = limit
    for node in sorted(worth, key=_bytes):
        left -= _bytes(node)
        if left < 0:
            break
        chosen.add(node)
    return [node for node in worth if node in chosen]


def _ends(graph: Graph, constants: set[fx.Node]) -> Iterator[fx.Node]:
    for node in graph.code.nodes:
        computed = node in constants and node.op == "call_function"
        if not computed or not isinstance(node.meta["val"], torch.Tensor):
            continue
        if any(user not in constants for user in node.users):
            yield node


def _before_views(node: fx.Node) -> fx.Node:
    """Return the value of which another one is a view, which costs nothing."""
    while schema_name(node) in _VIEWS and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node


def _is_moved(node: fx.Node) -> bool:
    """Whether a value holds entries of a single tensor as they are, or has no operands at all."""
    while node.op == "call_function" and schema_name(node) in _MOVES:
        first = node.args[0]
        assert isinstance(first, fx.Node)
        node = first
    return node.op == "get_attr" or not isinstance(node.meta["val"], torch.Tensor)


def reads_through_views(node: Any, stored: Iterable[fx.Node]) -> bool:
    """Whether a value may share its memory with a stored one."""
    kept = set(stored)
    while isinstance(node, fx.Node) and node not in kept and schema_name(node) in _MOVES:
        node = node.args[0]
    return node in kept


def _varies(value: Any) -> bool:
    leaves = pytree.tree_leaves(value)
    sizes = [size for one in leaves if isinstance(one, torch.Tensor) for size in one.shape]
    return any(map(is_symbolic, [*leaves, *sizes]))


def _bytes(node: fx.Node) -> int:
    value = node.meta["val"]
    return math.prod(int(size) for size in value.shape) * int(value.element_size())
