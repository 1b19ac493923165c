"""Side inputs and tables: their values at the new entries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from graphprog.analysis.input_meaning import inferred_meaning, neutral_entry
from graphprog.analysis.pointers import pointed
from graphprog.ir.fake import fake_tensor
from graphprog.ir.sizes import SLICE_END, Size, has_length
from graphprog.passes.extend_axis.context import Context
from graphprog.passes.extend_axis.pointer_rules import shifted
from graphprog.rewriting.refusal import RefusalError

_SIDE = "side"


class SideInputs:
    """Policy for extending inputs and tables that have the axis.

    Attributes:
        meanings: meanings of side inputs, by name: ``present`` (1 or True), ``zero`` or
            ``positions``.
        tables: policy for tensors of the model that have the axis: ``refuse``, or ``zeros`` if they
            are added, so that they do not change the new entries.
        axis_dims: dimensions of inputs of fixed length that have the axis.
        pointers: inputs whose numbers are positions on the axis.
    """

    def __init__(
        self,
        meanings: Mapping[str, str],
        tables: str,
        axis_dims: Mapping[str, frozenset[int]],
        pointers: frozenset[str] = frozenset(),
    ) -> None:
        self.meanings = dict(meanings)
        self.tables = tables
        self.axis_dims = dict(axis_dims)
        self.pointers = pointers
        self._inferred: dict[str, str] = {}

    def extended(self, context: Context, node: fx.Node, wanted: Mapping[int, Any]) -> fx.Node:
        """Return a model input extended by values for the inserted entries.

        Raises:
            RefusalError: its length is a multiple of the axis, or its meaning is unknown.
        """
        axis, name = context.axis, key_of(node)
        shape = fake_tensor(node).shape
        dims = {dim for dim, size in enumerate(shape) if axis.growth(size) != 0}
        dims |= set(wanted) | self.axis_dims.get(name, frozenset())
        if not axis.symbolic and dims:
            self.axis_dims[name] = frozenset(dims)
        if not dims and name in self.pointers:
            return shifted(context, node)
        result = node
        for dim in sorted(dims):
            computed = dim not in wanted and axis.growth(shape[dim]) != axis.added
            if axis.symbolic and computed:
                raise RefusalError(node, "its length is not the axis itself but computed from it")
            result = self._padded(context, node, result, dim)
            result.meta[_SIDE] = node.meta.get(_SIDE, str(node.target))
        return result

    def _padded(self, context: Context, node: fx.Node, value: fx.Node, dim: int) -> fx.Node:
        name = str(node.meta.get(_SIDE, node.target))
        inputs = context.edit.code.find_nodes(op="placeholder")
        source = next(one for one in inputs if str(one.target) == name)
        meaning = self._meaning(source)
        if meaning == "positions":
            return _positions(context, node, value, dim)
        return join(context, value, dim, neutral_entry(source, meaning), like=node)

    def _meaning(self, source: fx.Node) -> str:
        """Return the meaning of an input, given or inferred."""
        name = str(source.target)
        if name not in self.meanings and name not in self._inferred:
            found = inferred_meaning(source)
            if not found.role:
                what = "what stands for an inserted entry in this input"
                if found.unclear is not None and any(True for _ in pointed(found.unclear)):
                    what = "to which segment an inserted entry belongs, or where it points,"
                raise RefusalError(
                    source,
                    f"{what} is not known "
                    f"(input_roles={{{name!r}: 'present', 'zero' or 'positions'}} says it)",
                    found.unclear,
                )
            self._inferred[name] = found.role
        return self.meanings.get(name) or self._inferred[name]

    def table(
        self, context: Context, node: fx.Node, wanted: Mapping[int, Any], additive: bool
    ) -> fx.Node:
        """Return a tensor of the model extended by values for the inserted entries.

        Raises:
            RefusalError: the policy, or the use of the tensor, does not allow it.
        """
        if self.tables == "refuse":
            raise RefusalError(
                node, "a tensor of the model has the fixed length of the axis", context.reader
            )
        if not additive:
            raise RefusalError(
                node,
                "a tensor of the model has the fixed length of the axis, and is not added",
                context.reader,
            )
        result = node
        for dim in wanted:
            result = join(context, result, dim, 0, like=node)
        return result


def is_side_input(node: fx.Node, size: Size) -> bool:
    """Whether a value is an input, or was extended to this length by an earlier insertion."""
    longer = _SIDE in node.meta and has_length(fake_tensor(node), size)
    return node.op == "placeholder" or longer


def key_of(node: fx.Node) -> str:
    """Return the name of an input, or of the node at which it was extended."""
    return str(node.target) if node.op == "placeholder" else node.name


def join(context: Context, value: fx.Node, dim: int, fill: Any, like: fx.Node) -> fx.Node:
    """Insert constant entries into a value, at the offset of the insertion."""
    ops, point = torch.ops.aten, context.point
    ndim = fake_tensor(value).ndim
    before = [0, 0] * (ndim - 1 - dim)
    added = point.axis.added

    def pad(part: fx.Node, sides: list[int]) -> fx.Node:
        call = (part, [*before, *sides], fill)
        return context.copy_call(ops.constant_pad_nd.default, call, like)

    if point.offset == 0:
        return pad(value, [added, 0])
    if point.offset == -1:
        return pad(value, [0, added])
    slices = (
        [(0, point.offset), (point.offset, SLICE_END)]
        if point.offset > 0
        else [(0, point.offset + 1), (point.offset + 1, SLICE_END)]
    )
    head, tail = (
        context.copy_call(ops.slice.Tensor, (value, dim, *bounds), like) for bounds in slices
    )
    return context.copy_call(ops.cat.default, ([pad(head, [0, added]), tail], dim), like)


def _positions(context: Context, node: fx.Node, value: fx.Node, dim: int) -> fx.Node:
    """Insert positions for the inserted entries; positions after them are shifted."""
    ops, point = torch.ops.aten, context.point
    if point.offset < 0:
        raise RefusalError(node, "positions of entries inserted at the end are not known")
    shifted = join(context, value, dim, 0, like=node)
    size = context.copy_call(ops.sym_size.int, (shifted, dim), node)
    counted = context.copy_call(ops.arange.default, (size,), node)
    after = context.copy_call(ops.ge.Scalar, (counted, point.offset + point.axis.added), node)
    inside = context.copy_call(ops.ge.Scalar, (counted, point.offset), node)
    moved = context.copy_call(ops.add.Scalar, (shifted, point.axis.added), node)
    rest = context.copy_call(ops.where.self, (inside, counted, shifted), node)
    return context.copy_call(ops.where.self, (after, moved, rest), node)
