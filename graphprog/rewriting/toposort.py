"""Topological order of nodes: a node comes after what it reads."""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx


class CycleError(Exception):
    """A value depends on itself."""


def is_ordered(code: fx.Graph) -> bool:
    """Whether every node comes after what it reads."""
    seen: set[fx.Node] = set()
    for node in code.nodes:
        if any(read not in seen for read in node.all_input_nodes):
            return False
        seen.add(node)
    return True


def sort(code: fx.Graph) -> None:
    """Move what a node reads before it; all other nodes keep their order.

    Raises:
        CycleError: a node depends on its own value.
    """
    done: dict[fx.Node, None] = {}
    opened: set[fx.Node] = set()
    for root in code.nodes:
        stack = [root]
        while stack:
            node = stack[-1]
            if node in done:
                stack.pop()
                continue
            waiting = [read for read in node.all_input_nodes if read not in done]
            if not waiting:
                done[node] = None
                stack.pop()
            elif node in opened:
                raise CycleError
            else:
                opened.add(node)
                stack += reversed(waiting)
    arrange(code, done)


def arrange(code: fx.Graph, first: Iterable[fx.Node]) -> None:
    """Put some nodes first, in the given order; the others keep theirs, with the output last."""
    output = code.output_node()
    nodes = dict.fromkeys([*first, *code.nodes])
    for node in nodes:
        if node is not output:
            output.prepend(node)
