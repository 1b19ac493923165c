"""Where an axis becomes longer, and where it ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import fx

from graphprog.ir.interface import Interface
from graphprog.ir.sizes import Stretch
from graphprog.rewriting.edges import Slot
from graphprog.rewriting.editor import Editor

Demands = Mapping[int, Any]
"""Dimensions of a value, and the length each must have."""

Change = tuple[str, int, Any]
"""A leaf that was replaced: node, position, and what stood there (a node by its name)."""


@dataclasses.dataclass(frozen=True)
class Cut:
    """Where an axis becomes longer.

    Attributes:
        old: the value before.
        new: the value with more entries, which the edges read already.
        edges: the uses that read it.
        stretch: the length of its axis, and how much is added.
        offset: in front of which entry the new ones stand; -1 is behind the last.
    """

    old: fx.Node
    new: fx.Node
    edges: frozenset[Slot]
    stretch: Stretch
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
