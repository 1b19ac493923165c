"""Edges of an fx graph: which argument of which node reads a value."""

from __future__ import annotations

from typing import Any

from torch import fx
from torch.utils import _pytree as pytree

Slot = tuple[fx.Node, int]
"""A node that reads a value, and the position of the value in its flattened arguments."""


def leaves_of(node: fx.Node) -> list[Any]:
    """The flattened arguments of a node; an Edge's slot counts along this list."""
    return pytree.tree_leaves((node.args, node.kwargs))


def set_leaf(node: fx.Node, slot: int, value: Any) -> None:
    """Replace one leaf of a node's arguments."""
    leaves, tree = pytree.tree_flatten((node.args, node.kwargs))
    leaves[slot] = value
    node.args, node.kwargs = pytree.tree_unflatten(leaves, tree)


def uses_of(node: fx.Node) -> list[Slot]:
    """Every place where a node's value is read, in graph order."""
    users = sorted(node.users)
    return [
        (user, slot) for user in users for slot, leaf in enumerate(leaves_of(user)) if leaf is node
    ]
