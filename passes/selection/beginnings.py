"""Reads of a beginning: entries up to one of them, before which causal attention sees no others."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import torch
from torch import fx

from graphprog.analysis.constants import computed_constants, constants_of
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.ops import bound
from graphprog.ir.sizes import expression, same_size
from graphprog.ir.weights import Weights
from graphprog.passes.selection.axis_rules import shape_of
from graphprog.passes.selection.ranges import Ranges
from graphprog.passes.selection.reads import Read
from graphprog.passes.selection.writer import Writer, is_named
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.toposort import sort

_aten = torch.ops.aten
_ATTENTION = "scaled_dot_product_attention"


def bound_reads(edit: Editor, graph: Graph, meta: dict[str, Any]) -> None:
    """Write reads at constant numbers as reads of the entries up to the largest of them.

    For example the features at the ends of fixed class texts are read from the positions up to the
    last end. Numbers outside of these stay an error, so that they are never other entries.

    Args:
        edit: of the graph, in which nodes have the names that they have in the graph.
        graph: the graph.
        meta: further metadata of new nodes.
    """
    reading = [one for one in graph.code.nodes if one.target is _aten.index.Tensor]
    constants = constants_of(graph) if reading else set()
    numbers = {
        index: None
        for one in reading
        if one.args[0] not in constants and _are_numbers(one.args[1])
        for index in one.args[1]
        if index in constants
    }
    if not numbers:
        return
    found = dict(zip(numbers, computed_constants(graph, list(numbers)), strict=True))
    writer = Writer(edit.code, meta)
    alive = {node.name: node for node in edit.code.nodes}
    for one in reading:
        if one.args[0] in constants or one.name not in alive or not _are_numbers(one.args[1]):
            continue
        node = alive[one.name]
        value: Any = node.args[0]
        for axis, index in enumerate(one.args[1]):
            values, size = found.get(index), fake_tensor(value).shape[axis]
            if values is None or not values.numel() or not isinstance(size, int):
                continue
            first, last = int(values.min()), int(values.max())
            if first >= 0 and last + 1 < size:
                value = writer.call(_aten.slice.Tensor, value, axis, 0, last + 1)
        node.args = (value, *node.args[1:])
    sort(edit.code)


def _are_numbers(places: Any) -> bool:
    """Whether all indices are numbers, one axis each, and none is a mask."""
    given = [fake_tensor(one).dtype for one in places if one is not None]
    return not any(dtype in (torch.bool, torch.uint8) for dtype in given)


@dataclasses.dataclass(frozen=True)
class Beginnings:
    """Which operands a beginning of a value needs, where they need no other entries either.

    Attributes:
        code: the operations.
        weights: the tensors.
        opaque: nodes of which nothing is known.
    """

    code: fx.Graph
    weights: Weights
    opaque: frozenset[fx.Node]

    @cached_property
    def ranges(self) -> Ranges:
        """Bounds of masks."""
        return Ranges(self.code, self.weights, self.opaque)

    def operands(self, node: fx.Node, read: Read) -> dict[fx.Node, Read] | None:
        """Return what is read of operands; None where there is no rule for this.

        Args:
            node: the operation.
            read: a stretch from the first entry of its result.
        """
        if read.span is None or read.span[0] != 0:
            return None
        if is_named(node, "cat"):
            return _of_parts(node, read)
        return self._of_attention(node, read) if is_named(node, _ATTENTION) else None

    def _of_attention(self, node: fx.Node, read: Read) -> dict[fx.Node, Read] | None:
        """Queries and keys, where no query sees a later key."""
        given, rank = bound(node), len(shape_of(node))
        query, key, value, mask = (given[name] for name in ("query", "key", "value", "attn_mask"))
        square = same_size(shape_of(query)[-2], shape_of(key)[-2])
        if read.axis != rank - 2 or given.get("dropout_p") or not square:
            return None
        wanted = {one: read.along(len(shape_of(one)) - 2) for one in (query, key, value)}
        if given["is_causal"]:
            return wanted
        if not isinstance(mask, fx.Node) or len(shape_of(mask)) < 2:
            return None
        sizes = [expression(size) for size in shape_of(mask)[-2:]]
        if any(size == 1 for size in sizes) or mask in wanted:
            return None
        if not self.ranges.hides(mask, int(read.length), int(read.length)):
            return None
        return {**wanted, mask: read.along(len(shape_of(mask)) - 2)}


def _of_parts(node: fx.Node, read: Read) -> dict[fx.Node, Read] | None:
    """The parts up to the one in which the beginning ends, and nothing of later ones."""
    given = bound(node)
    parts, axis = list(given["tensors"]), given["dim"] % len(shape_of(node))
    if axis != read.axis or len(set(parts)) < len(parts):
        return None
    found, left = {}, int(read.length)
    for part in parts:
        size = shape_of(part)[axis]
        if left and not isinstance(size, int):
            return None
        if left == 0:
            found[part] = Read(axis, 0, span=(0, 0), stays=True)
        elif left < size:
            found[part] = Read(axis, left, span=(0, left))
            left = 0
        else:
            left -= size
    return found


def cut_keys(writer: Writer, node: fx.Node, read: Read) -> None:
    """Cut the mask of attention of which fewer keys are left."""
    mask = bound(node)["attn_mask"] if is_named(node, _ATTENTION) else None
    if mask is not None:
        cut = writer.call(_aten.slice.Tensor, mask, -1, 0, int(read.length))
        node.replace_input_with(mask, cut)
