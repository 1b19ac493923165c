"""What the rules of an axis extension read and change."""

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
"""Dimensions of a value, and the length each must have."""

Change = tuple[str, int, Any]
"""A leaf that was replaced: node, position, and what stood there (a node by its name)."""


@dataclasses.dataclass(frozen=True)
class InsertionPoint:
    """Where an axis becomes longer.

    Attributes:
        old: the value before.
        new: the value with more entries, which the edges read already.
        edges: the uses that read it.
        axis: its length, and how much is added.
        offset: before which entry the new ones stand; -1 is after the last.
    """

    old: fx.Node
    new: fx.Node
    edges: frozenset[Slot]
    axis: Stretch
    offset: int


@dataclasses.dataclass(frozen=True)
class End:
    """Where the entries are taken out again.

    Attributes:
        node: the value.
        edges: the uses that do not see them.
    """

    node: fx.Node
    edges: frozenset[Slot]

    @classmethod
    def at(cls, edit: Editor, place: Interface) -> End:
        """The end at an interface."""
        return cls(edit.node(place.node), frozenset(edit.edges(place.edges)))


class Context(ABC):
    """The state of an axis extension, and the edits that rules make.

    Attributes:
        edit: of the graph.
        point: where the axis becomes longer.
        reach: the nodes after it, which are derived again in place.
        part: of the program, to which new nodes belong.
        kernels: run operations on fake values.
        before: fake values of nodes whose axis is longer by now, when it was shorter.
        factors: what merged dimensions are made of, by node and dimension.
        originals: what stood at each leaf that was replaced in what is derived again.
        reader: the node that is derived at the moment; new nodes stand before it.
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
        """The length of the axis, and how much is added."""
        return self.point.axis

    @abstractmethod
    def demand(self, node: fx.Node, wanted: dict[int, Any], additive: bool) -> fx.Node:
        """A node with some dimensions at another length, since a reader cannot do without.

        Args:
            node: what is read.
            wanted: dimensions and their new lengths.
            additive: whether the reader adds it, so that zeros change nothing.

        Raises:
            RefusalError: it cannot have that length.
        """

    def old_value(self, node: fx.Node) -> Any:
        """What a node's value was when the axis was shorter."""
        return self.before.get(node, node.meta.get("val"))

    def put(self, node: fx.Node, slot: int, value: Any) -> None:
        """Replace a leaf of a node, and remember what stood there at first."""
        old = leaves_of(node)[slot]
        if old is value:
            return
        set_leaf(node, slot, value)
        if node in self.reach:
            self.originals.setdefault((node, slot), old)

    def copy_call(self, target: Any, args: Any, like: fx.Node) -> fx.Node:
        """A new operation before the node that is derived, in place of ``like``."""
        node = self.edit.call(target, args, before=self.reader, part=self.part)
        self.before[node] = fake_tensor(like)
        self.as_variable(node)
        return node

    def as_variable(self, node: fx.Node) -> None:
        """Let a value have the new length as a size of its own, not as a sum."""
        value, total = fake_value(node), expression(self.axis.size) + self.axis.added
        if not isinstance(value, torch.Tensor) or not self.axis.symbolic:
            return
        shape = [self.size if expression(one) == total else one for one in value.shape]
        node.meta["val"] = value.new_empty(shape)
