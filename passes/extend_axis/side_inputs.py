"""Side inputs and tables: what stands at the new entries where a value comes from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import schema_name
from graphprog.ir.sizes import SLICE_END, Size, has_length
from graphprog.passes.extend_axis.context import Context
from graphprog.rewriting.refusal import RefusalError

_SIDE = "side"
_COMPARES = {"aten::eq", "aten::ne"}
_ORDERS = {"aten::gt", "aten::ge", "aten::lt", "aten::le"}
_ADDS = {"aten::add", "aten::add_", "aten::scaled_dot_product_attention"}
_SAME_VALUE = {
    "aten::view",
    "aten::reshape",
    "aten::to",
    "aten::_to_copy",
    "aten::unsqueeze",
    "aten::expand",
    "aten::slice",
    "aten::cat",
    "aten::constant_pad_nd",
    "aten::clone",
}
_LOOKS_UP = {"aten::embedding": 1, "aten::index_select": 2, "aten::embedding_bag": 1}


class SideInputs:
    """How inputs and tables that carry the axis become longer.

    Attributes:
        meanings: of side inputs, by name: ``present`` (1 or True), ``zero`` or ``positions``.
        tables: policy for tensors of the model that carry the axis: ``refuse``, or ``zeros``
            where they are added, so that the new entries get none of it.
        axis_dims: the dimensions of inputs of fixed length that turned out to carry the axis.
    """

    def __init__(
        self,
        meanings: Mapping[str, str],
        tables: str,
        axis_dims: Mapping[str, frozenset[int]],
    ) -> None:
        self.meanings = dict(meanings)
        self.tables = tables
        self.axis_dims = dict(axis_dims)
        self._told: dict[str, str] = {}

    def extended(self, context: Context, node: fx.Node, wanted: Mapping[int, Any]) -> fx.Node:
        """A model input with entries in the place of the inserted ones.

        Raises:
            RefusalError: its length is a multiple of the axis, or its meaning cannot be told.
        """
        axis, name = context.axis, key_of(node)
        shape = fake_tensor(node).shape
        dims = {dim for dim, size in enumerate(shape) if axis.growth(size) != 0}
        dims |= set(wanted) | self.axis_dims.get(name, frozenset())
        if not axis.symbolic and dims:
            self.axis_dims[name] = frozenset(dims)
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
        if name not in self._told:
            self._told[name] = self.meanings.get(name) or inferred_meaning(node)
        meaning = self._told[name]
        if not meaning:
            raise RefusalError(
                node,
                "what stands for an inserted entry in this input is not known "
                f"(input_roles={{{name!r}: 'present', 'zero' or 'positions'}} says it)",
            )
        if meaning == "positions":
            return _positions(context, node, value, dim)
        return join(context, value, dim, _neutral(node, meaning), like=node)

    def table(
        self, context: Context, node: fx.Node, wanted: Mapping[int, Any], additive: bool
    ) -> fx.Node:
        """A tensor of the model with entries for the inserted ones.

        Raises:
            RefusalError: the policy, or what it is used for, does not allow it.
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
    """Whether a value is an input, or one to which an earlier insertion gave this length."""
    longer = _SIDE in node.meta and has_length(fake_tensor(node), size)
    return node.op == "placeholder" or longer


def key_of(node: fx.Node) -> str:
    """The name of an input, or of the node at which it is longer."""
    return str(node.target) if node.op == "placeholder" else node.name


def inferred_meaning(node: fx.Node) -> str:
    """What an input means, told by what the graph does with it; empty where nothing tells."""
    value = fake_tensor(node)
    if value.dtype == torch.bool:
        return "present"
    if any(schema_name(user) == "aten::diff" for user in _readers(node)):
        return ""  # neither presence nor types go on by steps
    if not value.dtype.is_floating_point:
        return "zero" if _looked_up(node) else "present"
    added = {schema_name(user) for user in _readers(node)} <= _ADDS
    return "zero" if added else ""


def _readers(node: fx.Node) -> list[fx.Node]:
    """What reads a value, also in another shape."""
    found: list[fx.Node] = []
    stack = list(node.users)
    while stack:
        user = stack.pop()
        if schema_name(user) in _SAME_VALUE:
            stack += user.users
        elif isinstance(user.meta.get("val"), torch.Tensor):
            found.append(user)
    return found


def compared_with(node: fx.Node) -> list[int]:
    """The numbers that an input is compared with, such as that of padding or of a text's end."""
    readers = [user for user in _readers(node) if schema_name(user) in _COMPARES]
    return sorted({user.args[1] for user in readers if isinstance(user.args[1], int)})


def _looked_up(node: fx.Node) -> bool:
    return any(schema_name(user) in _LOOKS_UP for user in _readers(node))


def _neutral(node: fx.Node, meaning: str) -> Any:
    """The number that stands at the inserted entries of an input."""
    if meaning == "present":
        return True if fake_tensor(node).dtype == torch.bool else 1
    if fake_tensor(node).dtype.is_floating_point:
        return 0.0
    # an id that the model compares with, such as the one of padding, would be taken for it
    special: set[Any] = set(compared_with(node))
    for user in _readers(node):  # whether it is more than 0, say, asks for padding as well
        if schema_name(user) in _ORDERS and user.args[1] in (0, 1):
            special |= {0, user.args[1]}
    return next(number for number in range(len(special) + 1) if number not in special)


def join(context: Context, value: fx.Node, dim: int, fill: Any, like: fx.Node) -> fx.Node:
    """Put entries of one number between those of a value, at the offset of the insertion."""
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
    """Positions where the inserted entries count: those behind them move on."""
    ops, point = torch.ops.aten, context.point
    if point.offset < 0:
        raise RefusalError(node, "positions of entries inserted at the end are not known")
    shifted = join(context, value, dim, 0, like=node)
    size = context.copy_call(ops.sym_size.int, (shifted, dim), node)
    counted = context.copy_call(ops.arange.default, (size,), node)
    behind = context.copy_call(ops.ge.Scalar, (counted, point.offset + point.axis.added), node)
    inside = context.copy_call(ops.ge.Scalar, (counted, point.offset), node)
    moved = context.copy_call(ops.add.Scalar, (shifted, point.axis.added), node)
    rest = context.copy_call(ops.where.self, (inside, counted, shifted), node)
    return context.copy_call(ops.where.self, (behind, moved, rest), node)
