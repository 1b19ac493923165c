"""What a graph remembers: where its interfaces lie, what was put in, which passes ran."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from graphprog.ir.interface import Edge


@dataclasses.dataclass(frozen=True)
class Site:
    """Where an interface lies in one graph: a node, the uses concerned, the module's class."""

    node: str
    edges: tuple[Edge, ...]
    module: str = ""


@dataclasses.dataclass(frozen=True)
class Insertion:
    """What a pass put in, and how to take it out again.

    Attributes:
        kind: what was replaced: a ``value`` on some of its uses, the length of an ``axis``, the
            ``prefix`` of attention, a model ``input``, inputs that are ``bound``, or the
            ``output`` of the model.
        name: of the program's part.
        at: key of the interface.
        result: node that stands there now.
        original: node that stood there; for an output, the node the alignment reads; for an
            input, the name of the input.
        undo: restores what stood there, in an Editor of a graph that has the insertion last.
        label: of the manipulation; a wildcard makes several parts of one.
        values_before: by node, the fake values that the insertion changed.
    """

    kind: str
    name: str
    at: str
    result: str
    original: str
    undo: Callable[[Any], None] = dataclasses.field(compare=False, repr=False)
    label: str = ""
    values_before: Mapping[str, Any] = dataclasses.field(
        default_factory=dict, compare=False, repr=False
    )


@dataclasses.dataclass(frozen=True)
class Mode:
    """A value of the graph that training computes in another way.

    Attributes:
        evaluating: node that everything reads.
        training: node that everything reads in training; dead code otherwise.
        updates: tensor of the program to the node of the value it has after a run in training.
    """

    evaluating: str
    training: str
    updates: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes it is about."""
        return (self.evaluating, self.training, *self.updates.values())


@dataclasses.dataclass(frozen=True)
class Step:
    """One entry of a graph's history."""

    text: str
    milliseconds: float
    changed: bool
    nodes: int

    def __str__(self) -> str:
        effect = "" if self.changed else ", changed nothing"
        return f"{self.text}  ({self.milliseconds:.1f} ms, {self.nodes} nodes{effect})"
