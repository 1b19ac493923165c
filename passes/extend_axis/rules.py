"""Rules that adapt an operation to longer operands: its literals, then its other operands.

A numeric length is changed only if it *is* the axis. For reshapes, the factors show this
(:mod:`graphprog.passes.extend_axis.reshape_rules`). For other operations, every change of a literal
or of another operand's length is tried on fake values, and the smallest change with which the
operation runs is used
(:mod:`graphprog.passes.extend_axis.literal_search`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.utils._sympy.functions import FloorDiv

from graphprog.analysis.constants import counts_entries
from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import RESHAPES, schema_name
from graphprog.ir.sizes import SLICE_END, expression, same_shape, same_size
from graphprog.passes.extend_axis.ambiguity import refuse_ambiguous
from graphprog.passes.extend_axis.baked_choices import refuse_baked_choice
from graphprog.passes.extend_axis.context import Context, Demands
from graphprog.passes.extend_axis.literal_search import cannot_follow, has_lengths, search_lengths
from graphprog.passes.extend_axis.reshape_rules import MERGES, adapt_reshape, record_merge
from graphprog.rewriting.refusal import RefusalError


def derive(context: Context, node: fx.Node, wanted: Demands | None) -> Any:
    """Adapt a node to its current operands, and run it.

    Args:
        context: context of the extension.
        node: the node to run; its literals and operands may be replaced.
        wanted: required lengths of the result.

    Returns:
        The value of the node.

    Raises:
        RefusalError: the node cannot be adapted.
    """
    name = schema_name(node)
    refuse_baked_choice(context, node)
    rules = {"aten::index": _adapt_index} if context.axis.symbolic else _RULES
    if name in rules:
        rules[name](context, node, wanted)
    value = _run(context, node, wanted or {})
    old = context.old_value(node)
    if isinstance(value, list | tuple) and len(value) != len(old):
        raise RefusalError(node, f"it returns {len(value)} values where {len(old)} are read")
    if name in RESHAPES and _is_cut(value) and not _is_cut(old):
        raise RefusalError(node, "the longer axis cannot be cut like this")
    refuse_ambiguous(context, node, concerned=True)
    return value


def _run(context: Context, node: fx.Node, wanted: Demands) -> Any:
    """Run a node, if necessary with other literals or operands."""
    reason = "its length is not computed from what it reads"
    try:
        value = context.kernels.run(node)
        if has_lengths(value, wanted) or not wanted:
            return value
    except Exception as error:  # whatever it is, something has to change
        reason = str(error)
    search_lengths(context, node, wanted, reason)
    if schema_name(node) == "aten::index":
        _adapt_index(context, node, wanted)
    try:
        return context.kernels.run(node)
    except Exception as error:  # what was asked for came with other lengths than tried
        raise RefusalError(node, cannot_follow(str(error))) from error


def _is_cut(value: torch.Tensor) -> bool:
    """Whether a length is a quotient that may have a remainder."""
    return any(expression(size).has(FloorDiv) for size in value.shape)


def _adapt_expand(context: Context, node: fx.Node, wanted: Demands | None) -> None:
    """Set an expanded dimension to the length of its operand, or to the wanted length."""
    source, sizes = node.args[0], node.args[1]
    assert isinstance(source, fx.Node)
    assert isinstance(sizes, list | tuple)
    value, old = fake_tensor(source), context.old_value(source)
    for position, size in enumerate(sizes):
        dim = position - (len(sizes) - value.ndim)
        own = dim >= 0 and not same_size(old.shape[dim], 1)
        if own and isinstance(size, int) and not same_size(old.shape[dim], value.shape[dim]):
            context.put(node, 1 + position, -1)
        elif wanted and position in wanted and isinstance(size, int):
            if own:
                grown = context.demand(source, {dim: wanted[position]}, additive=False)
                context.put(node, 0, grown)
                context.put(node, 1 + position, -1)
            else:
                context.put(node, 1 + position, wanted[position])


def _adapt_slice(context: Context, node: fx.Node, wanted: Demands | None) -> None:
    """Extend a slice that ended at the end of its source, or a slice with a wanted length."""
    source, dim, _, end = (*node.args, 0, 0, SLICE_END)[:4] if len(node.args) < 4 else node.args[:4]
    assert isinstance(source, fx.Node)
    assert isinstance(dim, int)
    old, value = context.old_value(source), fake_tensor(source)
    dim %= old.ndim
    size = old.shape[dim]
    if not isinstance(end, int) or not isinstance(size, int):
        return
    if wanted and dim in wanted:
        more = int(wanted[dim]) - int(context.old_value(node).shape[dim])
        if end < size and same_size(size, value.shape[dim]):
            if end + more > size:
                raise RefusalError(
                    source, f"it has no entries beyond {size} of the {end + more} needed"
                )
            context.put(node, 3, end + more)
            return
        context.put(node, 0, context.demand(source, {dim: size + more}, additive=False))
    if end >= size and len(node.args) > 3:
        context.put(node, 3, SLICE_END)


def _adapt_index(context: Context, node: fx.Node, wanted: Demands | None) -> None:
    """Extend a table that is read at positions to the number of positions."""
    source, positions = node.args[0], node.args[1]
    assert isinstance(source, fx.Node)
    assert isinstance(positions, list | tuple)
    sizes, added = fake_tensor(source).shape, context.axis.added
    lengths = {
        dim: sizes[dim] + added
        for dim, position in enumerate(positions)
        if isinstance(position, fx.Node)
        and not same_shape(context.old_value(position), fake_tensor(position))
        and _may_be_axis(context, sizes[dim])
        and (not context.axis.symbolic or counts_entries(position))
    }
    if lengths and source not in context.reach:
        context.put(node, 0, context.demand(source, lengths, additive=False))
    if not context.axis.symbolic:
        _adapt_positions(context, node)


def _adapt_positions(context: Context, node: fx.Node) -> None:
    """Extend positions to the number of entries, if both had the same length before."""
    source, positions = node.args[0], node.args[1]
    assert isinstance(source, fx.Node)
    assert isinstance(positions, list | tuple)
    old, new = context.old_value(source).shape, fake_tensor(source).shape
    slot = 0
    for dim, position in enumerate(positions):
        slot += 1
        if (
            not isinstance(position, fx.Node)
            or old[dim] == new[dim]
            or not counts_entries(position)
        ):
            continue
        shape = fake_tensor(position).shape
        same = [axis for axis, size in enumerate(shape) if same_size(size, old[dim])]
        if len(same) == 1 and position not in context.reach:
            grown = context.demand(position, {same[0]: new[dim]}, additive=False)
            context.put(node, slot, grown)


def _may_be_axis(context: Context, size: Any) -> bool:
    """Whether an unchanged length may be that of the axis."""
    axis = context.axis
    if not axis.symbolic:
        return same_size(size, axis.size)
    # what is only read at positions is not known to have the length of the axis
    if not isinstance(size, torch.SymInt) or not expression(size).is_Symbol:
        return False
    assert isinstance(axis.size, torch.SymInt)
    like = bool(size.node.hint == axis.size.node.hint)
    return like and not same_size(size, context.size)


_RULES: dict[str, Callable[[Context, fx.Node, Demands | None], None]] = {
    **dict.fromkeys(RESHAPES, adapt_reshape),
    **dict.fromkeys(MERGES, record_merge),
    "aten::expand": _adapt_expand,
    "aten::slice": _adapt_slice,
    "aten::index": _adapt_index,
}
"""Rules for operations with numeric lengths, by schema name."""
