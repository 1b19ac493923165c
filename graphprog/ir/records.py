"""Records of a graph: sites of interfaces, insertions, modes, and the history of passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, SupportsIndex, overload

from graphprog.ir.interface import Edge
from graphprog.utils.columns import columns
from graphprog.utils.html import table

_WIDEST = 64
_HEADER = ("pass", "what it did", "time")


@dataclasses.dataclass(frozen=True)
class Site:
    """The location of an interface: a node, some of its uses, the module's class."""

    node: str
    edges: tuple[Edge, ...]
    module: str = ""


@dataclasses.dataclass(frozen=True)
class Insertion:
    """A change that a pass made, and how to undo it.

    Attributes:
        kind: what was changed: a ``value`` on some of its uses, the length of an ``axis``, the
            ``prefix`` of attention, a model ``input``, inputs that are ``bound``, or the
            ``output`` of the model.
        name: name of the program's part.
        at: key of the interface.
        result: the node that is there now.
        original: the node that was there before; for an output, the node that the alignment
            reads; for an input, the name of the input.
        undo: restores the original, in an Editor of a graph whose last insertion this is.
        label: label of the manipulation; with a wildcard, one manipulation has several parts.
        values_before: the fake values that the insertion changed, by node.
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
    """A value of the graph that is computed differently in training.

    Attributes:
        evaluating: the node that is read in evaluation.
        training: the node that is read in training; dead code otherwise.
        updates: for tensors of the program, the nodes of their values after a training step.
    """

    evaluating: str
    training: str
    updates: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes of the mode."""
        return (self.evaluating, self.training, *self.updates.values())


@dataclasses.dataclass(frozen=True)
class Step:
    """One entry of a graph's history; a note says what was measured of its effect."""

    text: str
    milliseconds: float
    changed: bool
    nodes: int
    note: str = ""

    def __str__(self) -> str:
        effect = "" if self.changed else ", changed nothing"
        return f"{self.text}  ({self.milliseconds:.1f} ms, {self.nodes} nodes{effect})"


class Steps(tuple[Step, ...]):
    """The history of a graph, oldest first; prints as a table."""

    __slots__ = ()

    @overload
    def __getitem__(self, index: SupportsIndex) -> Step: ...
    @overload
    def __getitem__(self, index: slice) -> Steps: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Step | Steps:
        found = super().__getitem__(index)
        return Steps(found) if isinstance(found, tuple) else found

    def followed_by(self, step: Step) -> Steps:
        """Return the history with one more step."""
        return Steps((*self, step))

    def noted(self, note: str) -> Steps:
        """Return the history with a note about its last step."""
        last = dataclasses.replace(self[-1], note="\n".join(filter(None, [self[-1].note, note])))
        return Steps((*self[:-1], last))

    @property
    def notes(self) -> list[str]:
        """What was measured of the effects of steps, oldest first."""
        return [step.note for step in self if step.note]

    def _rows(self) -> list[tuple[str, str, str]]:
        rows, before = [], 0
        for step in self:
            rows.append(
                (_shortened(step.text), _effect(step, before), f"{step.milliseconds:.1f} ms")
            )
            before = step.nodes
        return rows

    def __str__(self) -> str:
        return "\n".join([*columns(self._rows(), _HEADER), *self.notes])

    def _repr_html_(self) -> str:
        """Return the table, for notebooks."""
        return table(self._rows(), _HEADER)

    __repr__ = __str__


def _shortened(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


def _effect(step: Step, before: int) -> str:
    """Return a text such as ``+3 nodes, 231 in all``."""
    if not step.changed:
        return "nothing"
    if not before:
        return f"{step.nodes} nodes"
    growth = step.nodes - before
    return f"{growth:+d} nodes, {step.nodes} in all" if growth else f"rewired, {step.nodes} nodes"
