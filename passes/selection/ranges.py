"""What is known of some entries of a value: bounds, and whether they are the same in every row."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import fx, nn

from graphprog.ir.dependence.batch_rows import batch_of, depends_on
from graphprog.ir.dependence.classes import draws
from graphprog.ir.fake import fake_tensor
from graphprog.ir.memory.packed import PackedWeight, held_at
from graphprog.ir.ops import schema_name
from graphprog.ir.sizes import counts_data, expression, is_symbolic
from graphprog.ir.weights import Weights
from graphprog.passes.selection.axis_rules import row_arguments, shape_of
from graphprog.passes.selection.range_rules import (
    FILLED,
    RULES,
    SHAPED,
    Range,
    Region,
    constant,
)

_DEPTH = 100
_LARGEST = 2**24
_LARGEST_OF_FLOATS = 2**20


class Ranges:
    """Finds bounds of entries by interval arithmetic, from masks and positions up to inputs.

    Args:
        code: the operations.
        weights: the tensors.
        opaque: nodes of which nothing is known, as they differ in training.
        alike: number of the first entries of whole numbers [B, S, ...] that are given as inputs
            which are taken to be the same in every row.

    Attributes:
        same: nodes that stand for others, of which the same is known.
        assumed: the inputs of which this was used.
    """

    def __init__(
        self, code: fx.Graph, weights: Weights, opaque: frozenset[fx.Node], alike: int = 0
    ) -> None:
        self._weights = weights
        self._opaque = opaque
        self._batch = batch_of(code)
        self._known: dict[tuple[fx.Node, Region], Range] = {}
        self._varying: set[fx.Node] = set()
        self._made: set[fx.Node] = set()
        self._alike = alike
        self.same: dict[fx.Node, fx.Node] = {}
        self.assumed: dict[fx.Node, None] = {}
        for node in code.nodes:
            own = node.op == "placeholder" or node in opaque or self._makes_rows(node)
            if own:
                self._made.add(node)
            if own or any(part in self._varying for part in depends_on(node)):
                self._varying.add(node)

    def varies(self, node: fx.Node) -> bool:
        """Whether a value is not proved to be the same in every row."""
        return self.of(node, ()).varies

    def of(self, node: fx.Node, region: Region, depth: int = 0) -> Range:
        """Return what is known of some entries of a value."""
        node = self.same.get(node, node)
        key = node, region
        if key not in self._known:
            found = Range(varies=node in self._varying)
            if depth < _DEPTH and node not in self._opaque:
                found = self._found(node, region, depth + 1)
                if node not in self._varying:
                    found = dataclasses.replace(found, varies=False)
            self._known[key] = found
        return self._known[key]

    def _makes_rows(self, node: fx.Node) -> bool:
        """Whether an operation makes rows that differ, from none."""
        if node.op != "call_function":
            return False
        if draws(node):
            return True
        leaves: list[Any] = [one.meta.get("val") for one in node.all_input_nodes]
        sizes = [one for one in leaves if is_symbolic(one)]
        if self._batch is None or any(map(counts_data, sizes)):
            return bool(sizes)
        name = schema_name(node)
        shaped = name in FILLED or name in SHAPED or name.startswith("aten::sym_")
        tensor = isinstance(node.meta.get("val"), torch.Tensor | list | tuple)
        return tensor and self._batch.among(sizes) and not shaped

    def _found(self, node: fx.Node, region: Region, depth: int) -> Range:
        value = node.meta.get("val")
        if isinstance(value, int | float):
            return constant(value)
        if not isinstance(value, torch.Tensor):
            return Range(varies=node in self._varying)
        if node.op == "get_attr":
            return self._stored(node, region)
        rule = RULES.get(schema_name(node))
        if node.op != "call_function":
            return self._given(node, value, region)

        def ask(part: Any, own: Region | None = None) -> Range:
            if isinstance(part, int | float):
                return constant(part)
            if not isinstance(part, fx.Node):
                return Range()
            number = part.meta.get("val")
            if not isinstance(number, torch.Tensor | list | tuple):
                rows = self._batch is None or (is_symbolic(number) and self._batch.among([number]))
                counts = is_symbolic(number) and expression(number).is_nonnegative
                return Range(0 if counts else -math.inf, varies=bool(rows))
            return self.of(part, regions.get(part, ()) if own is None else own, depth)

        regions = operand_regions(node, region)
        found = None if rule is None else rule(node, region, ask)
        if found is not None:
            return found
        made = node in self._made
        return Range(varies=made or any(ask(part).varies for part in depends_on(node)))

    def _given(self, node: fx.Node, value: torch.Tensor, region: Region) -> Range:
        whole = not (value.is_floating_point() or value.is_complex())
        if whole and any(axis == 1 and end <= self._alike for axis, _, end in region):
            self.assumed[node] = None
            return Range(varies=False)
        return Range()

    def hides(self, mask: fx.Node, queries: int, first: int, end: float = math.inf) -> bool:
        """Whether a mask [..., Q, K] hides keys from the first queries: they get no weight at all.

        Args:
            mask: of attention, bool or added.
            queries: number of queries.
            first: number of the first of these keys.
            end: number after the last of them.
        """
        rank = len(shape_of(mask))
        own = (rank - 2, 0, queries)
        high = self.of(mask, (own, (rank - 1, first, end))).high
        dtype = fake_tensor(mask).dtype
        if dtype == torch.bool:
            return high == 0
        least = torch.finfo(dtype).min
        seen = self.of(mask, (own, (rank - 1, 0, 1)))
        return high == -math.inf or (high <= least and seen.low > least / 2)

    def _stored(self, node: fx.Node, region: Region) -> Range:
        path = str(node.target)
        tensor = held_at(self._weights, path)
        if isinstance(tensor, PackedWeight):
            return Range(varies=False)
        largest = _LARGEST_OF_FLOATS if tensor.is_floating_point() else _LARGEST
        unknown = isinstance(tensor, nn.Parameter) or tensor.is_complex() or tensor.is_meta
        if path.startswith("program.") or unknown or tensor.numel() > largest:
            return Range(varies=False)
        for axis, start, end in region:
            size = tensor.shape[axis]
            start = min(start, size)
            tensor = tensor.narrow(axis, start, max(0, int(min(end, size)) - start))
        if not tensor.numel():
            return Range(varies=False)
        return Range(varies=False).bounded(float(tensor.min()), float(tensor.max()))


def operand_regions(node: fx.Node, region: Region) -> dict[fx.Node, Region]:
    """Return which entries of operands are read for some entries of a result."""
    found: dict[fx.Node, list[tuple[int, int, float]]] = {}
    for axis, start, end in region:
        for part, own in _arguments(node, axis):
            if expression(shape_of(part)[own]) != 1:
                found.setdefault(part, []).append((own, start, end))
    return {part: tuple(sorted(axes)) for part, axes in found.items()}


def _arguments(node: fx.Node, axis: int) -> list[tuple[fx.Node, int]]:
    if schema_name(node) in ("aten::__and__", "aten::__or__"):
        tensors = [one for one in node.args if isinstance(one, fx.Node)]
        axes = [(one, axis - len(shape_of(node)) + len(shape_of(one))) for one in tensors]
        return [(one, own) for one, own in axes if own >= 0]
    return row_arguments(node, axis) or []
