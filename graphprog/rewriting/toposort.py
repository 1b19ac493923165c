"""The order of nodes: what a node reads comes before it."""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx


class CycleError(Exception):
    """A value would be computed from itself."""


def is_ordered(code: fx.Graph) -> bool:
    """Whether every node comes after what it reads."""
    seen: set[fx.Node] = set()
    for node in code.nodes:
        if any(read not in seen for read in node.all_input_nodes):
            return False
        seen.add(node)
    return True


def sort(code: fx.Graph) -> None:
    """Move what a node reads in front of it; everything else stays in its order.

    Raises:
        CycleError: a node reads, through others, what is computed from it.
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
    """Put some nodes first, in the order given; the others follow in theirs, the output last."""
    output = code.output_node()
    nodes = dict.fromkeys([*first, *code.nodes])
    for node in nodes:
        if node is not output:
            output.prepend(node)
