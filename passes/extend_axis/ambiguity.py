"""Ambiguities: numbers that may be the length of a fixed axis or something else.

A length that capture fixed is a number in the graph. If an operation runs both with this number and
with the longer length, either could be meant: it is refused. It can be rewritten if the axis is
dynamic.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphprog.analysis.constants import counts_entries
from graphprog.ir.fake import fake_tensor, fake_value
from graphprog.ir.ops import RESHAPES, schema_name
from graphprog.ir.sizes import Size
from graphprog.passes.extend_axis.context import Context
from graphprog.rewriting.edges import leaves_of
from graphprog.rewriting.fake_execution import FailedError, read_values, run_on
from graphprog.rewriting.refusal import RefusalError

_DECIDED = RESHAPES | {"aten::expand"}
_DECIDED |= {f"aten::{name}" for name in ("arange", "ones", "zeros", "full", "empty", "eye")}
_DECIDED |= {f"aten::new_{name}" for name in ("ones", "zeros", "full", "empty")}
"""Operations that other rules decide: by aligning factors, or by their readers."""
_NO_LENGTHS = {"dim", "dims", "dim0", "dim1", "start_dim", "end_dim", "axis", "source"} | {
    *("destination", "stride", "padding", "dilation", "groups", "output_padding"),
    *("padding_idx", "correction", "alpha", "memory_format", "dimension", "dims_self"),
    *("dims_other", "ord", "p"),
}
"""Arguments of operations, as their schemas name them, that are never a length: places of axes,
orders of norms, and the like."""
_ARITHMETIC = {
    f"aten::{name}{end}"
    for name in ("add", "sub", "rsub", "mul", "div", "floor_divide", "remainder", "pow")
    for end in ("", "_")
}

_READS_AT = {"aten::index", "aten::index_select", "aten::gather", "aten::take_along_dim"}


def refuse_ambiguous(context: Context, node: fx.Node, concerned: bool) -> None:
    """Refuse a node that may hold the length of the axis as a number.

    Args:
        context: context of the extension of an axis with a fixed length.
        node: a node that was run again, or need not be.
        concerned: whether any of its operands is longer.

    Raises:
        RefusalError: it may.
    """
    name = schema_name(node)
    if context.axis.symbolic or name in _DECIDED or not context.axis.added:
        return
    if not concerned:
        if name in _ARITHMETIC:
            _refuse_numbers(context, node, {int(context.axis.size)})
        return
    grown = _changed_lengths(context, node)
    if name in ("aten::select", "aten::slice", "aten::narrow"):
        _refuse_bounds(context, node)
        return
    _refuse_numbers(context, node, grown)
    if not _is_data(node) and counts_entries(node):  # the last entry, among positions
        _refuse_numbers(context, node, {length - 1 for length in grown})
    if name not in _READS_AT:
        return
    for part in node.all_input_nodes:
        value = fake_value(part)
        fixed = isinstance(value, torch.Tensor) and part not in context.before
        if (
            fixed
            and value.dtype == torch.int64
            and grown & set(_numbers(value))
            and counts_entries(part)
        ):
            _refuse(node, f"as many positions as there were entries, {tuple(value.shape)},")


def _refuse(node: fx.Node, what: str) -> None:
    raise RefusalError(
        node, f"whether {what} stands for the length of the axis cannot be determined (let it vary)"
    )


def _changed_lengths(context: Context, node: fx.Node) -> set[int]:
    """Return the old lengths of all extended dimensions of a node's operands."""
    found = {int(context.axis.size)}
    for part in node.all_input_nodes:
        old, new = context.old_value(part), fake_tensor(part)
        if isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor):
            found |= {
                one
                for one, two in zip(_sizes(old), _sizes(new), strict=False)
                if isinstance(one, int) and isinstance(two, int) and one != two
            }
    return found - {1}


def _refuse_numbers(context: Context, node: fx.Node, lengths: set[int]) -> None:
    added = context.axis.added
    never = never_lengths(node)
    for slot, leaf in enumerate(leaves_of(node)):
        number = isinstance(leaf, int | float) and not isinstance(leaf, bool)
        if not number or abs(leaf) not in lengths or slot in never or abs(leaf) < 2:
            continue
        if _runs_with(node, slot, leaf + added if leaf > 0 else leaf - added):
            _refuse(node, f"the number {leaf}")


def _refuse_bounds(context: Context, node: fx.Node) -> None:
    """Refuse an entry, a bound or a step that may have been computed from the length of the axis.

    Numbers below 0 count from the end.
    """
    source, dim, *bounds = node.args
    assert isinstance(source, fx.Node)
    assert isinstance(dim, int)
    old, new = (value.shape[dim] for value in (context.old_value(source), fake_tensor(source)))
    if old == new or not isinstance(old, int) or old <= 2:
        return
    size = context.axis.size
    numbers = [bound for bound in bounds if isinstance(bound, int)]
    narrowed = schema_name(node) == "aten::narrow" and sum(numbers) == old
    for number in numbers:
        if narrowed or abs(number) in (old - 1, old) or (abs(number) == size and size < old):
            _refuse(node, f"the number {number}")


def never_lengths(node: fx.Node) -> set[int]:
    """Return the slots of a node's arguments that its schema knows not to be a length."""
    return {slot for name, slot, _ in _named_leaves(node) if name in _NO_LENGTHS}


def _named_leaves(node: fx.Node) -> Iterator[tuple[str, int, Any]]:
    """Yield every leaf of a node's arguments, with argument name and slot."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return
    names = [argument.name for argument in node.target._schema.arguments]
    slot = 0
    for name, value in [*zip(names, node.args, strict=False), *node.kwargs.items()]:
        for leaf in pytree.tree_leaves(value):
            yield name, slot, leaf
            slot += 1


def _is_data(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return not isinstance(value, torch.Tensor) or value.is_floating_point()


def _runs_with(node: fx.Node, slot: int, number: int | float) -> bool:
    """Whether a node runs with another number, and returns as many values."""
    values = read_values(node)
    values[slot] = number
    try:
        result = run_on(node, values)
    except FailedError:  # the number is not the length
        return False
    several = isinstance(result, list | tuple)
    return not several or len(result) == len(fake_tensor(node))


def _numbers(value: torch.Tensor) -> list[int]:
    return [size for size in _sizes(value) if isinstance(size, int)]


def _sizes(value: torch.Tensor) -> list[Size]:
    return list(value.shape)
