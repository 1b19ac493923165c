"""The end of inserted entries: from an interface on, they are gone again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from graphprog.ir.fake import fake_tensor
from graphprog.ir.sizes import differ
from graphprog.passes.extend_axis.cuts import End
from graphprog.rewriting.edges import set_leaf
from graphprog.rewriting.refusal import RefusalError

if TYPE_CHECKING:
    from graphprog.passes.extend_axis.propagate import Growth

_SLICE = torch.ops.aten.slice.Tensor


def take_out(growth: Growth, end: End, axis: int) -> None:
    """Let the uses of an end read its value without the entries.

    Raises:
        RefusalError: something behind the end also reads a longer value from in front of it.
    """
    reader = end.node.next
    value, added, offset = end.node, growth.cut.stretch.added, growth.cut.offset
    bounds: list[tuple[int | None, int | None]] = [(0, offset), (offset + added, None)]
    if offset in (0, -1):
        bounds = [(added, None)] if offset == 0 else [(None, -added)]
    pieces = [
        growth.edit.call(_SLICE, (value, axis, first, last), reader, growth.part)
        for first, last in bounds
    ]
    joined = (torch.ops.aten.cat.default, (pieces, axis))
    result = pieces[0] if len(pieces) == 1 else growth.edit.call(*joined, reader, growth.part)
    result.meta["val"] = growth.old_value(value)
    for user, slot in end.edges:
        set_leaf(user, slot, result)
        growth.originals[user, slot] = value
    growth.edit.redirect(value, set(end.edges), result, {(node, 0) for node in pieces})
    for node in growth.reach.beyond:
        grown = [part for part in node.all_input_nodes if part in growth.before]
        longer = [part for part in grown if differ(growth.before[part], fake_tensor(part))]
        if longer and node.op != "output":
            raise RefusalError(longer[0], "the entries also get around where they end", node)
