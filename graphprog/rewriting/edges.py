"""Edges of an fx graph (which argument of which node reads a value), and saved calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container
from typing import Any

from torch import fx
from torch.utils import _pytree as pytree

Slot = tuple[fx.Node, int]
"""A node that reads a value, and the position of the value in its flattened arguments."""


def leaves_of(node: fx.Node) -> list[Any]:
    """Return the flattened arguments of a node; the slot of an Edge is an index into them."""
    return pytree.tree_leaves((node.args, node.kwargs))


def set_leaf(node: fx.Node, slot: int, value: Any) -> None:
    """Replace one leaf of a node's arguments."""
    leaves, tree = pytree.tree_flatten((node.args, node.kwargs))
    leaves[slot] = value
    node.args, node.kwargs = pytree.tree_unflatten(leaves, tree)


def uses_of(node: fx.Node) -> list[Slot]:
    """Return every place that reads the value of a node, in graph order."""
    users = sorted(node.users)
    return [
        (user, slot) for user in users for slot, leaf in enumerate(leaves_of(user)) if leaf is node
    ]


def uses_for(result: fx.Node, value: fx.Node, given: Container[fx.Node]) -> list[Slot]:
    """Return the uses of a value by a node and by what computes it, back to given nodes."""
    found: list[Slot] = []
    waiting, seen = [result], {result}
    while waiting:
        node = waiting.pop()
        found += [(node, slot) for slot, leaf in enumerate(leaves_of(node)) if leaf is value]
        further = {part for part in node.all_input_nodes if part not in given} - seen
        waiting += further
        seen |= further
    return found


@dataclasses.dataclass(frozen=True)
class Named:
    """A reference to a node by its name, among the arguments of a call."""

    name: str


@dataclasses.dataclass(frozen=True)
class Call:
    """The saved arguments of a node, valid after its code has changed."""

    node: str
    args: Any
    kwargs: Any

    @classmethod
    def of(cls, node: fx.Node) -> Call:
        """Save the current arguments of a node."""
        args, kwargs = pytree.tree_map(
            lambda leaf: Named(leaf.name) if isinstance(leaf, fx.Node) else leaf,
            (node.args, node.kwargs),
        )
        return cls(node.name, args, kwargs)

    def restore(self, named: Callable[[str], fx.Node]) -> None:
        """Restore the saved arguments of the node, with nodes looked up by name."""
        args, kwargs = pytree.tree_map(
            lambda leaf: named(leaf.name) if isinstance(leaf, Named) else leaf,
            (self.args, self.kwargs),
        )
        node = named(self.node)
        node.args, node.kwargs = tuple(args), kwargs
