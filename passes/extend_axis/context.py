"""The context of an axis extension, which its rules read and change."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from graphprog.analysis.reachability import Reachability
from graphprog.ir.fake import fake_tensor, fake_value
from graphprog.ir.interface import Interface
from graphprog.ir.sizes import Stretch, expression, stand_in
from graphprog.passes.extend_axis.reshape_factors import Factors
from graphprog.rewriting.edges import Slot, leaves_of, set_leaf
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.fake_execution import Kernels

Demands = Mapping[int, Any]
"""Dimensions of a value, with their required lengths."""

Change = tuple[str, int, Any]
"""A replaced leaf: node, position, and original (a node by its name)."""


@dataclasses.dataclass(frozen=True)
class InsertionPoint:
    """The point at which an axis is extended.

    Attributes:
        old: the value before.
        new: the value with more entries, which the edges already read.
        edges: the uses that read it.
        axis: its length, and the number of added entries.
        offset: position of the first new entry; -1 for after the last entry.
    """

    old: fx.Node
    new: fx.Node
    edges: frozenset[Slot]
    axis: Stretch
    offset: int


@dataclasses.dataclass(frozen=True)
class End:
    """A point at which the entries are removed again.

    Attributes:
        node: the value.
        edges: the uses that do not see them.
    """

    node: fx.Node
    edges: frozenset[Slot]

    @classmethod
    def at(cls, edit: Editor, place: Interface) -> End:
        """Return the end at an interface."""
        return cls(edit.node(place.node), frozenset(edit.edges(place.edges)))


class Context(ABC):
    """The state of an axis extension, and the edits that rules make.

    Attributes:
        edit: editor of the graph.
        point: where the axis is extended.
        reach: the nodes after it, which are re-derived in place.
        part: part of the program that new nodes belong to.
        kernels: run operations on fake values.
        before: original fake values of nodes with an extended axis.
        factors: factors of merged dimensions, by node and dimension.
        originals: originals of the leaves replaced in re-derived nodes.
        reader: the node being re-derived; new nodes are inserted before it.
        size: the new length.
    """

    def __init__(self, edit: Editor, point: InsertionPoint, reach: Reachability, part: str) -> None:
        self.edit = edit
        self.point = point
        self.reach = reach
        self.part = part
        self.kernels = Kernels()
        self.before: dict[fx.Node, Any] = {point.new: fake_tensor(point.old)}
        self.factors: dict[tuple[fx.Node, int], Factors] = {}
        self.originals: dict[Slot, Any] = {}
        self.reader = point.new
        size, added = point.axis.size, point.axis.added
        self.size = stand_in(size, added) if isinstance(size, torch.SymInt) else size + added

    @property
    def axis(self) -> Stretch:
        """The length of the axis, and the number of added entries."""
        return self.point.axis

    @abstractmethod
    def demand(self, node: fx.Node, wanted: dict[int, Any], additive: bool) -> fx.Node:
        """Return a node with other lengths of some dimensions, as a reader requires.

        Args:
            node: the node that is read.
            wanted: dimensions and their new lengths.
            additive: whether the reader adds it, so that zeros change nothing.

        Raises:
            RefusalError: it cannot have that length.
        """

    def old_value(self, node: fx.Node) -> Any:
        """Return the original fake value of a node."""
        return self.before.get(node, node.meta.get("val"))

    def put(self, node: fx.Node, slot: int, value: Any) -> None:
        """Replace a leaf of a node, and record the original."""
        old = leaves_of(node)[slot]
        if old is value:
            return
        set_leaf(node, slot, value)
        if node in self.reach:
            self.originals.setdefault((node, slot), old)

    def copy_call(self, target: Any, args: Any, like: fx.Node) -> fx.Node:
        """Insert an operation before the node being re-derived, in place of ``like``."""
        node = self.edit.call(target, args, before=self.reader, part=self.part)
        self.before[node] = fake_tensor(like)
        self.as_variable(node)
        return node

    def as_variable(self, node: fx.Node) -> None:
        """Give a value the new length as a symbol, not as a sum."""
        value, total = fake_value(node), expression(self.axis.size) + self.axis.added
        if not isinstance(value, torch.Tensor) or not self.axis.symbolic:
            return
        shape = [self.size if expression(one) == total else one for one in value.shape]
        node.meta["val"] = value.new_empty(shape)
