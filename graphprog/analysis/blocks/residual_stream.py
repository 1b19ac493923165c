"""The residual stream: the activation that each activation continues.

A residual addition continues the operand that the others are computed from. If there is none, it
continues the operand that no layer has changed since the last addition; if there are several, the
activation from which all of them begin. A concatenation continues the branch that itself has
additions, the largest of several. So what lies inside a residual branch is not on the stream of
the layers after it, and two networks that are joined late are two streams.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import torch
from torch import fx

from graphprog.ir.fake import fake_value
from graphprog.ir.ops import schema_name, values_of

_SUMS = ("aten::add", "aten::add_", "aten::sub", "aten::sub_", "aten::addcmul")
_PRODUCTS = ("aten::mul", "aten::mul_")
_CONCATENATIONS = ("aten::cat", "aten::stack")
_MIXING = re.compile(r"aten::(linear|addmm|mm|bmm|matmul|einsum|_?conv|scaled_dot_product|fft)")


def mixes(node: fx.Node) -> bool:
    """Whether an operation computes each entry from several entries with weights."""
    return _MIXING.match(schema_name(node)) is not None


class ResidualStream:
    """For each activation of a graph, the one that it continues.

    Activations are floating-point or complex values that are computed from inputs, or are added to
    such.
    """

    def __init__(self, code: fx.Graph) -> None:
        self._order = {node: position for position, node in enumerate(code.nodes)}
        self._before: dict[fx.Node, fx.Node | None] = {}
        self._depth: dict[fx.Node, int] = {}
        self._sums: dict[fx.Node, int] = {}
        self._residuals: dict[fx.Node, int] = {}
        self._joins: dict[fx.Node, int] = {}
        self._layers: dict[fx.Node, int] = {}  # since the last addition
        self._inputs: set[fx.Node] = set()  # and what is computed from them
        for node in code.nodes:
            # sizes do not carry activations
            operands = [part for part in values_of(node) if _tensors(part)]
            if node.op == "placeholder" or not self._inputs.isdisjoint(operands):
                self._inputs.add(node)
            if _is_floating(node):
                self._add(node, self._candidates(node, operands))

    def _candidates(self, node: fx.Node, operands: Sequence[fx.Node]) -> list[fx.Node]:
        """Return the operands that a result may continue.

        Constants are among them if the result is constant, and where layers have changed them and
        a branch of them is added to them: learned queries that read a sequence.
        """
        known = [part for part in operands if part in self._before]
        if node not in self._inputs:
            return [part for part in known if part.op != "get_attr"] or known[:1]
        read = [part for part in known if part in self._inputs]
        if schema_name(node) in _SUMS:
            for part in known:
                changed = part not in read and self._sums[part] + self._layers[part] > 0
                alike = changed and _shape(part) == _shape(node)
                if alike and all(self._reaches(other, part) for other in read):
                    return [part, *read]
        return read

    def _add(self, node: fx.Node, operands: Sequence[fx.Node]) -> None:
        alike = [part for part in operands if _shape(part) == _shape(node)]
        if alike and schema_name(node) not in _CONCATENATIONS:
            operands = alike  # masks, gates and biases that are broadcast do not continue
        before, kept = self._continued(node, operands)
        joined = before is not None and len(operands) > 1
        added = joined and schema_name(node) in _SUMS
        changes = {
            "_depth": 1,
            "_joins": joined,
            "_sums": added,
            "_residuals": added and kept,
        }
        for name, change in changes.items():
            known = getattr(self, name)
            known[node] = change + (0 if before is None else known[before])
        self._before[node] = before
        layers = 0 if before is None or added else self._layers[before]
        self._layers[node] = layers + mixes(node)

    def _continued(self, node: fx.Node, operands: Sequence[fx.Node]) -> tuple[fx.Node | None, bool]:
        """Return the operand that a result continues, and whether as it is."""
        if len(operands) < 2:
            return (operands[0] if operands else None), True
        oldest = min(operands, key=self._order.__getitem__)
        others = [part for part in operands if part is not oldest]
        concatenates = schema_name(node) in _CONCATENATIONS
        if not concatenates and all(self._reaches(part, oldest) for part in others):
            return oldest, True
        start = self._meeting(operands)
        if start is None and schema_name(node) in _PRODUCTS:  # by a mask that is an input
            deepest = max(operands, key=self._sums.__getitem__)
            return (deepest if self._sums[deepest] else None), False
        if start is None:
            return None, False
        if concatenates:
            deep = [part for part in operands if self._sums[part] > self._sums[start]]
            return _largest(deep) or start, False
        kept = [part for part in operands if not self._changed(part, start)]
        if len(kept) == 1:
            return kept[0], True
        return (start if kept else oldest), False

    def _changed(self, node: fx.Node, start: fx.Node) -> bool:
        """Whether a layer has changed an activation since the last addition after ``start``."""
        known = self._layers[start] if self._sums[node] == self._sums[start] else 0
        return self._layers[node] > known

    def _reaches(self, node: fx.Node, origin: fx.Node) -> bool:
        """Whether a value is computed from ``origin``."""
        first = self._order[origin]
        seen, stack = {node}, [node]
        while stack:
            for part in values_of(stack.pop()):
                if part is origin:
                    return True
                if part not in seen and self._order[part] > first:
                    seen.add(part)
                    stack.append(part)
        return False

    def _meeting(self, nodes: Sequence[fx.Node]) -> fx.Node | None:
        """Return the last activation that all of these continue."""
        first, *others = nodes
        for other in others:
            met = self.meeting(first, other)
            if met is None:
                return None
            first = met
        return first

    def meeting(self, one: fx.Node, other: fx.Node) -> fx.Node | None:
        """Return the last activation that two activations continue; None if there is none."""
        here: fx.Node | None = one if one in self._before else None
        there: fx.Node | None = other if other in self._before else None
        while here is not there:
            if here is None or there is None:
                return None
            if self._depth[here] >= self._depth[there]:
                here = self._before[here]
            else:
                there = self._before[there]
        return here

    def activations(self, node: fx.Node) -> list[fx.Node]:
        """Return the operands of an operation that are activations."""
        return [part for part in values_of(node) if part in self._inputs and part in self._before]

    def back(self, node: fx.Node) -> Iterator[fx.Node]:
        """Iterate over an activation and those that it continues, last first."""
        here: fx.Node | None = node if node in self._before else None
        while here is not None:
            yield here
            here = self._before[here]

    def continues(self, node: fx.Node, origin: fx.Node) -> bool:
        """Whether an activation continues another one, or is it."""
        if origin not in self._before:
            return False
        for here in self.back(node):
            if self._depth[here] <= self._depth[origin]:
                return here is origin
        return False

    def sums(self, first: fx.Node, last: fx.Node) -> int:
        """Return the number of additions of branches after ``first``, up to ``last``."""
        return self._sums[last] - self._sums[first]

    def residuals(self, first: fx.Node, last: fx.Node) -> int:
        """Return the number of additions to an activation as it is, after ``first``."""
        return self._residuals[last] - self._residuals[first]

    def joins(self, first: fx.Node, last: fx.Node) -> int:
        """Return the number of places where branches come together after ``first``."""
        return self._joins[last] - self._joins[first]

    def position(self, node: fx.Node) -> int:
        """Return the position of a node in the graph."""
        return self._order[node]


def _is_floating(node: fx.Node) -> bool:
    return any(part.is_floating_point() or part.is_complex() for part in _tensors(node))


def _tensors(node: fx.Node) -> list[torch.Tensor]:
    value = node.meta.get("val")
    parts = value if isinstance(value, list | tuple) else (value,)
    return [part for part in parts if isinstance(part, torch.Tensor)]


def _largest(nodes: Sequence[fx.Node]) -> fx.Node | None:
    """Return the value with most entries; None if several have as many, or it is unknown."""
    if len(nodes) < 2:
        return nodes[0] if nodes else None
    shapes = [fake_value(node).shape for node in nodes]
    differing = [sizes for sizes in zip(*shapes, strict=False) if len(set(map(str, sizes))) > 1]
    if len(differing) != 1 or not all(isinstance(size, int) for size in differing[0]):
        return None
    largest = max(differing[0])
    return nodes[differing[0].index(largest)] if differing[0].count(largest) == 1 else None


def _shape(node: fx.Node) -> list[str] | None:
    value = fake_value(node)
    return [str(size) for size in value.shape] if isinstance(value, torch.Tensor) else None
