"""What the value of a node comes from."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable

from torch import fx

from graphprog.ir.printing import operator_name

_LIKE = {"zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"}


def sources_of(node: fx.Node) -> list[fx.Node]:
    """What numbers or lengths of a result come from; ``x.new_ones(4)`` only takes a type from x."""
    typed = operator_name(node).startswith("new_")
    return [part for part in node.all_input_nodes if not (typed and part is node.args[0])]


def values_of(node: fx.Node) -> list[fx.Node]:
    """What the numbers of a result come from; ``zeros_like(x)`` only takes a length from x."""
    like = operator_name(node).partition(".")[0] in _LIKE
    return [part for part in sources_of(node) if not (like and part is node.args[0])]


def ancestors(
    node: fx.Node,
    parts: Callable[[fx.Node], Iterable[fx.Node]] = operator.attrgetter("all_input_nodes"),
) -> list[fx.Node]:
    """A node and all that it is computed from.

    Args:
        node: where to begin.
        parts: what a node comes from.
    """
    found, stack = {node: None}, [node]
    while stack:
        fresh = [part for part in parts(stack.pop()) if part not in found]
        found.update(dict.fromkeys(fresh))
        stack += fresh
    return list(found)
