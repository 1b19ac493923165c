"""Make an operation agree with operands that have grown: its literals, then its other operands.

A length that is written as a number is changed only where it *is* the axis. For reshapes that is
read off the factors (:mod:`graphprog.passes.merges`). For anything else the operation itself
decides: every change of a literal or of another operand's length is tried on fake values, and the
smallest one under which the operation runs is taken (:mod:`graphprog.passes.trials`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.utils._sympy.functions import FloorDiv

from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import RESHAPES, schema_name
from graphprog.ir.sizes import SLICE_END, expression, same_shape, same_size
from graphprog.passes.extend_axis.ambiguity import counted, refuse_doubt
from graphprog.passes.extend_axis.baked_choices import refuse_chosen
from graphprog.passes.extend_axis.cuts import Demands
from graphprog.passes.extend_axis.literal_search import cannot_follow, change_lengths, has_lengths
from graphprog.passes.extend_axis.reshape_rules import MERGES, agree_reshape, note_merged
from graphprog.rewriting.refusal import RefusalError

if TYPE_CHECKING:
    from graphprog.passes.extend_axis.propagate import Growth


def agree(growth: Growth, node: fx.Node, wanted: Demands | None) -> Any:
    """Run a node on what it reads now, after making the rest of it agree.

    Args:
        growth: the re-derivation at work.
        node: what to run; its literals and operands may be replaced.
        wanted: lengths that the result must have.

    Returns:
        The value of the node.

    Raises:
        RefusalError: it cannot follow.
    """
    name = schema_name(node)
    refuse_chosen(growth, node)
    if not growth.cut.stretch.symbolic:
        if name in RESHAPES:
            agree_reshape(growth, node, wanted)
        elif name == "aten::expand":
            _agree_expand(growth, node, wanted)
        elif name == "aten::slice":
            _agree_slice(growth, node, wanted)
        elif name == "aten::index":
            _agree_index(growth, node)
        elif name in MERGES:
            note_merged(growth, node)
    elif name == "aten::index":
        _agree_index(growth, node)
    value = _run(growth, node, wanted or {})
    old = growth.old_value(node)
    if isinstance(value, list | tuple) and len(value) != len(old):
        raise RefusalError(node, f"it returns {len(value)} values where {len(old)} are read")
    if name in RESHAPES and _is_cut(value) and not _is_cut(old):
        raise RefusalError(node, "the longer axis cannot be cut like this")
    refuse_doubt(growth, node, concerned=True)
    return value


def _run(growth: Growth, node: fx.Node, wanted: Demands) -> Any:
    """Run a node, if need be with other literals or operands."""
    reason = "its length is not computed from what it reads"
    try:
        value = growth.kernels.run(node)
        if has_lengths(value, wanted) or not wanted:
            return value
    except Exception as error:  # whatever it is, something has to change
        reason = str(error)
    change_lengths(growth, node, wanted, reason)
    if schema_name(node) == "aten::index":
        _agree_index(growth, node)
    try:
        return growth.kernels.run(node)
    except Exception as error:  # what was asked for came with other lengths than tried
        raise RefusalError(node, cannot_follow(str(error))) from error


def _is_cut(value: torch.Tensor) -> bool:
    """Whether a length is a quotient that may have a rest."""
    return any(expression(size).has(FloorDiv) for size in value.shape)


def _agree_expand(growth: Growth, node: fx.Node, wanted: Demands | None) -> None:
    """Let an expanded dimension keep the length of its operand, or take the wanted one."""
    source, sizes = node.args[0], node.args[1]
    assert isinstance(source, fx.Node)
    assert isinstance(sizes, list | tuple)
    value, old = fake_tensor(source), growth.old_value(source)
    for position, size in enumerate(sizes):
        dim = position - (len(sizes) - value.ndim)
        own = dim >= 0 and not same_size(old.shape[dim], 1)
        if own and isinstance(size, int) and not same_size(old.shape[dim], value.shape[dim]):
            growth.put(node, 1 + position, -1)
        elif wanted and position in wanted and isinstance(size, int):
            if own:
                grown = growth.demand(source, {dim: wanted[position]}, additive=False)
                growth.put(node, 0, grown)
                growth.put(node, 1 + position, -1)
            else:
                growth.put(node, 1 + position, wanted[position])


def _agree_slice(growth: Growth, node: fx.Node, wanted: Demands | None) -> None:
    """Let a slice that went to the end go to the new end; give a wanted one more of its source."""
    source, dim, _, end = (*node.args, 0, 0, SLICE_END)[:4] if len(node.args) < 4 else node.args[:4]
    assert isinstance(source, fx.Node)
    assert isinstance(dim, int)
    old, value = growth.old_value(source), fake_tensor(source)
    dim %= old.ndim
    size = old.shape[dim]
    if not isinstance(end, int) or not isinstance(size, int):
        return
    if wanted and dim in wanted:
        more = int(wanted[dim]) - int(growth.old_value(node).shape[dim])
        if end < size and same_size(size, value.shape[dim]):
            if end + more > size:
                raise RefusalError(
                    source, f"it has no entries beyond {size} of the {end + more} needed"
                )
            growth.put(node, 3, end + more)
            return
        growth.put(node, 0, growth.demand(source, {dim: size + more}, additive=False))
    if end >= size and len(node.args) > 3:
        growth.put(node, 3, SLICE_END)


def _agree_index(growth: Growth, node: fx.Node) -> None:
    """Give what is read at positions along the axis as many entries as there are positions."""
    source, positions = node.args[0], node.args[1]
    assert isinstance(source, fx.Node)
    assert isinstance(positions, list | tuple)
    sizes, added = fake_tensor(source).shape, growth.cut.stretch.added
    wanted = {
        dim: sizes[dim] + added
        for dim, position in enumerate(positions)
        if isinstance(position, fx.Node)
        and not same_shape(growth.old_value(position), fake_tensor(position))
        and _may_be_axis(growth, sizes[dim])
        and (not growth.cut.stretch.symbolic or counted(position))
    }
    if wanted and source not in growth.reach:
        growth.put(node, 0, growth.demand(source, wanted, additive=False))
    if not growth.cut.stretch.symbolic:
        _agree_positions(growth, node)


def _agree_positions(growth: Growth, node: fx.Node) -> None:
    """Read as many entries as there are by now, where there were as many positions as entries."""
    source, positions = node.args[0], node.args[1]
    assert isinstance(source, fx.Node)
    assert isinstance(positions, list | tuple)
    old, new = growth.old_value(source).shape, fake_tensor(source).shape
    slot = 0
    for dim, position in enumerate(positions):
        slot += 1
        if not isinstance(position, fx.Node) or old[dim] == new[dim] or not counted(position):
            continue
        shape = fake_tensor(position).shape
        same = [axis for axis, size in enumerate(shape) if same_size(size, old[dim])]
        if len(same) == 1 and position not in growth.reach:
            grown = growth.demand(position, {same[0]: new[dim]}, additive=False)
            growth.put(node, slot, grown)


def _may_be_axis(growth: Growth, size: Any) -> bool:
    """Whether a length that has not grown may be that of the axis."""
    stretch = growth.cut.stretch
    if not stretch.symbolic:
        return same_size(size, stretch.size)
    # what is only read at positions is not known to have the length of the axis
    if not isinstance(size, torch.SymInt) or not expression(size).is_Symbol:
        return False
    assert isinstance(stretch.size, torch.SymInt)
    like = bool(size.node.hint == stretch.size.node.hint)
    return like and not same_size(size, growth.size)
