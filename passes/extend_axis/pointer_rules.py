"""Inputs that point into the axis, such as the edges of a graph network: their numbers shift."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx

from graphprog.analysis.input_uses import Kind, uses_of_input
from graphprog.analysis.pointers import POINTS, name_of, pointed, pointer_inputs
from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import ancestors
from graphprog.ir.sizes import same_size
from graphprog.passes.extend_axis.context import Context
from graphprog.rewriting.refusal import RefusalError

_UNLIKE = {Kind.GATE, Kind.ADDED, Kind.PRESENT, Kind.ABSENT}


def new_pointers(context: Context, node: fx.Node) -> frozenset[str]:
    """Return the inputs that point into the axis at an operation.

    Raises:
        RefusalError: their numbers are computed with, or have another use as well.
    """
    found: set[str] = set()
    for _, names, computed in _pointing(context, node, grown=True):
        if computed is not None and context.point.offset != -1:
            raise RefusalError(
                computed, f"positions on the axis are computed from {min(names)}", node
            )
        for one in context.edit.code.find_nodes(op="placeholder"):
            if str(one.target) in names:
                _require_only_pointers(one)
        found |= names
    return frozenset(found)


def refuse_other_axes(context: Context, pointers: frozenset[str]) -> None:
    """Refuse inputs that point into the longer axis and also into another one.

    Raises:
        RefusalError: names an operation where they point into another axis.
    """
    for node in ancestors(context.edit.code.output_node()):
        for place, names, _ in _pointing(context, node, grown=False):
            # what does not depend on the entries reads the input as it was
            if names & pointers and (place in context.before or POINTS in place.meta):
                raise RefusalError(
                    node, f"{min(names)} points into the longer axis, but also into another one"
                )


def _pointing(
    context: Context, node: fx.Node, grown: bool
) -> Iterator[tuple[fx.Node, set[str], fx.Node | None]]:
    """Yield pointers of inputs into an axis that is longer, or is not, and their inputs."""
    for source, dim, place in pointed(node):
        old, new = context.old_value(source), fake_tensor(source)
        if grown != (dim >= new.ndim or same_size(old.shape[dim], new.shape[dim])):
            names, computed = pointer_inputs(place)
            if names:
                yield place, names, computed


def _require_only_pointers(node: fx.Node) -> None:
    for use in uses_of_input(node):
        own = "graphprog" not in use.node.meta  # not the shift of an earlier insertion
        if own and (use.kind in _UNLIKE or use.number is not None):
            raise RefusalError(
                node, "it points into the axis, but its numbers are also used otherwise", use.node
            )


def shifted(context: Context, node: fx.Node) -> fx.Node:
    """Return pointers that skip the inserted entries: ``i + added`` from the offset on.

    Negative numbers count from the end, and skip entries that were inserted after them.
    """
    result = _moved(context, node)
    result.meta[POINTS] = name_of(node)
    return result


def _moved(context: Context, node: fx.Node) -> fx.Node:
    ops, offset, added = torch.ops.aten, context.point.offset, context.axis.added

    def call(target: object, *args: object) -> fx.Node:
        return context.copy_call(target, args, node)

    result = node
    if offset >= 0:
        moved = call(ops.add.Scalar, node, added)
        result = call(ops.where.self, call(ops.ge.Scalar, node, offset), moved, node)
    if offset == 0:
        return result
    back, from_end = call(ops.sub.Scalar, node, added), call(ops.lt.Scalar, node, 0)
    if offset == -1:
        return call(ops.where.self, from_end, back, node)
    counted = call(ops.add.Scalar, node, _length(context))
    before = call(ops.logical_and.default, from_end, call(ops.lt.Scalar, counted, offset))
    return call(ops.where.self, before, back, result)


def _length(context: Context) -> fx.Node | int:
    """Return the length of the axis before the extension."""
    size, old = context.axis.size, context.point.old
    if isinstance(size, int):
        return size
    dim = next(dim for dim, one in enumerate(fake_tensor(old).shape) if same_size(one, size))
    return context.edit.call(
        torch.ops.aten.sym_size.int, (old, dim), before=context.reader, part=context.part
    )
