"""Whole calls of a graph, so that changes of their arguments can be undone."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import fx
from torch.utils import _pytree as pytree

from graphprog.rewriting.editor import Editor


@dataclasses.dataclass(frozen=True)
class Named:
    """A node among arguments, by its name."""

    name: str


@dataclasses.dataclass(frozen=True)
class Call:
    """The arguments of a node, which outlive the code they stand in."""

    node: str
    args: Any
    kwargs: Any

    @classmethod
    def of(cls, node: fx.Node) -> Call:
        """The arguments that a node has now."""
        args, kwargs = pytree.tree_map(
            lambda leaf: Named(leaf.name) if isinstance(leaf, fx.Node) else leaf,
            (node.args, node.kwargs),
        )
        return cls(node.name, args, kwargs)

    def restore(self, edit: Editor) -> None:
        """Give the node of this name these arguments again."""
        args, kwargs = pytree.tree_map(
            lambda leaf: edit.node(leaf.name) if isinstance(leaf, Named) else leaf,
            (self.args, self.kwargs),
        )
        node = edit.node(self.node)
        node.args, node.kwargs = tuple(args), kwargs
