"""Several stretches of a value that are read, and the rest of it not, written as one selection."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import fx

from graphprog.ir.fake import fake_tensor
from graphprog.passes.selection.axis_rules import row_arguments
from graphprog.passes.selection.selections import stretch_of
from graphprog.passes.selection.writer import Writer
from graphprog.rewriting.toposort import sort

_aten = torch.ops.aten
_STRETCHES = (_aten.select.int, _aten.slice.Tensor)
_LEAST = 10
"""A tenth of the entries at least has to be left out, as a copy is made of the others."""

Span = tuple[int, int]


def unite_reads(writer: Writer, whole: Collection[fx.Node]) -> None:
    """Select the entries that some stretches read together, then the stretches from these.

    For example the class token and the patches after a block, between which prompts are put anew
    before the next one.

    Args:
        writer: of the code, without dead code.
        whole: nodes that are computed as they are.
    """
    for node in writer.code.find_nodes(op="call_function", target=_aten.narrow.default):
        _write_as_slice(node)
    for node in list(writer.code.nodes):
        if node.op != "call_function" or node in whole or len(node.users) < 2:
            continue
        found = _stretches(node)
        if found is None:
            continue
        axis, spans = found
        size, united = fake_tensor(node).shape[axis], _united(spans.values())
        unread = size - sum(end - start for start, end in united)
        if unread * _LEAST < size or row_arguments(node, axis) is None:
            continue
        sizes = [user for user in node.users if user not in spans]
        read = _selected(writer, node, axis, united)
        for user in sizes:
            user.replace_input_with(node, read)
        for user, (start, end) in spans.items():
            first = _place(start, united)
            if user.target is _aten.select.int:
                user.args = (read, axis, first)
            else:
                user.args = (read, axis, first, first + end - start)
            user.kwargs = {}
    sort(writer.code)


def _stretches(node: fx.Node) -> tuple[int, dict[fx.Node, Span]] | None:
    """Return the axis and the stretches that all users read; None if one reads otherwise."""
    axes: set[int] = set()
    sized: set[int] = set()
    spans: dict[fx.Node, Span] = {}
    for user in node.users:
        if user.target is _aten.sym_size.int:
            own: Any = user.args[1]
            sized.add(own % fake_tensor(node).ndim)
            continue
        known = stretch_of(user) if user.target in _STRETCHES else None
        if known is None or known.read.span is None or known.value is not node:
            return None
        axis = known.read.axis
        size: Any = fake_tensor(node).shape[axis]
        start, end = known.read.span
        if not isinstance(size, int) or not 0 <= start < end <= size:
            return None
        axes.add(axis)
        spans[user] = (start, end)
    if len(axes) != 1 or not axes.isdisjoint(sized):
        return None
    return axes.pop(), spans


def _write_as_slice(node: fx.Node) -> None:
    value, axis, start, length = node.args
    if isinstance(start, int) and isinstance(length, int) and start >= 0 and length > 0:
        node.target, node.args = _aten.slice.Tensor, (value, axis, start, start + length)


def _united(spans: Collection[Span]) -> list[Span]:
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _place(number: int, united: Collection[Span]) -> int:
    """Return the place of an entry among those that are read."""
    before = 0
    for start, end in united:
        if start <= number < end:
            return before + number - start
        before += end - start
    raise AssertionError("each stretch is part of the union")


def _selected(writer: Writer, node: fx.Node, axis: int, united: list[Span]) -> fx.Node:
    if len(united) == 1:
        return writer.call(_aten.slice.Tensor, node, axis, *united[0])
    device = fake_tensor(node).device
    parts = [writer.once(_aten.arange.start, start, end, device=device) for start, end in united]
    return writer.call(
        _aten.index_select.default, node, axis, writer.once(_aten.cat.default, parts)
    )
