"""Nodes that do nothing but select, and what they select."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from graphprog.ir.dependence.batch_rows import Place, batch_of
from graphprog.ir.dependence.view_rules import takes_all
from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import bound
from graphprog.ir.parts.cost import example_size
from graphprog.ir.sizes import expression, same_size
from graphprog.passes.selection.axis_rules import shape_of
from graphprog.passes.selection.reads import Read, Selection
from graphprog.passes.selection.writer import Writer, is_named

_aten = torch.ops.aten
_KEEP = ("to", "_to_copy", "alias", "clone", "contiguous", "unsqueeze")


class Selections:
    """Finds what nodes select.

    Args:
        writer: adds the computation of indices.
        axes: the axis of the batch in each value, by node.
    """

    def __init__(self, writer: Writer, axes: Mapping[fx.Node, Place]) -> None:
        self._writer = writer
        self._axes = axes
        self._batch = batch_of(writer.code)

    def of(self, node: fx.Node) -> Selection | None:
        """Return what a node selects, where that is only some of what there is."""
        if node.target in (_aten.select.int, _aten.slice.Tensor):
            return stretch_of(node)
        if node.target is _aten.index_select.default:
            return self._alike(*node.args)
        return self._indexed(node) if node.target is _aten.index.Tensor else None

    def is_rows(self, node: fx.Node) -> int | None:
        """Return the axis of a value that has one entry for each row of the batch."""
        place = self._axes.get(node)
        if not isinstance(place, int) or not self._is_batch(shape_of(node)[place]):
            return None
        return place

    def _indexed(self, node: fx.Node) -> Selection | None:
        value, places = node.args[:2]
        if not isinstance(value, fx.Node) or not isinstance(places, list | tuple):
            return None
        if is_named(value, "arange"):  # as when numbers are checked
            return None
        given = [(axis, one) for axis, one in enumerate(places) if isinstance(one, fx.Node)]
        if any(fake_tensor(one).dtype in (torch.bool, torch.uint8) for _, one in given):  # masks
            return None
        if len(given) == 1:
            ((axis, index),) = given
            flat = self._flattened(value, index) if axis == 0 else None
            return flat or self._alike(value, axis, index)
        if [axis for axis, _ in given] == [0, 1] and self._is_counter(given[0][1]):
            return self._by_row(value, given[1][1])
        return None

    def _alike(self, value: Any, axis: Any, index: Any) -> Selection | None:
        """Return a selection of the same entries for all."""
        if not isinstance(index, fx.Node) or fake_tensor(index).ndim != 1:
            return None
        axis %= fake_tensor(value).ndim
        found = self._checked(value, axis, index)
        if found is None:
            return None
        return Selection(value, Read(axis, fake_tensor(index).shape[0], index=found), True)

    def _by_row(self, value: fx.Node, index: fx.Node) -> Selection | None:
        """Return a selection of the entries of axis 1 that an index [B] or [B, L] names."""
        rank = fake_tensor(index).ndim
        if self.is_rows(value) != 0 or self.is_rows(index) != 0 or rank not in (1, 2):
            return None
        column = index if rank == 2 else self._writer.once(_aten.unsqueeze.default, index, 1)
        found = self._checked(value, 1, column)
        if found is None:
            return None
        read = Read(1, fake_tensor(column).shape[1], index=found, by_row=True)
        return Selection(value, read, rank == 2)

    def _flattened(self, value: fx.Node, index: fx.Node) -> Selection | None:
        """Return a selection of one entry of each row b: ``x.flatten(0, 1)[b * S + i]``."""
        whole = value.args[0] if value.target is _aten.flatten.using_ints else None
        if not isinstance(whole, fx.Node) or value.args[1:] != (0, 1):
            return None
        if index.target is not _aten.add.Tensor or index.kwargs:
            return None
        for start, own in (index.args, index.args[::-1]):
            if isinstance(start, fx.Node) and isinstance(own, fx.Node):
                single = fake_tensor(own).ndim == fake_tensor(start).ndim == 1
                if single and self._is_start(start, whole):
                    return self._by_row(whole, own) if _is_natural(own) else None
        return None

    def _is_start(self, node: fx.Node, value: fx.Node) -> bool:
        """Whether a node is the number of each row times the entries of a row."""
        if node.target is not _aten.mul.Tensor:
            return False
        counter, length = node.args
        size = length.meta["val"] if isinstance(length, fx.Node) else length
        if not isinstance(size, int | torch.SymInt) or not isinstance(counter, fx.Node):
            return False
        return same_size(size, fake_tensor(value).shape[1]) and self._is_counter(counter)

    def _is_counter(self, node: fx.Node) -> bool:
        """Whether a node is the number of each row: 0 to B - 1, [B] or [B, 1]."""
        while is_named(node, *_KEEP) or (is_named(node, "slice") and takes_all(node)):
            if is_named(node, "unsqueeze") and node.args[1] not in (1, -1):
                return False
            node = node.all_input_nodes[0]
        if not is_named(node, "arange"):
            return False
        given = bound(node)
        size = given["end"].meta["val"] if isinstance(given["end"], fx.Node) else given["end"]
        ordered = given.get("start", 0) == 0 and given.get("step", 1) == 1
        return ordered and self._is_batch(size)

    def _is_batch(self, size: Any) -> bool:
        return self._batch is not None and bool(self._batch.expression(size) == self._batch.size)

    def _checked(self, value: fx.Node, axis: int, index: fx.Node) -> fx.Node | None:
        """Return an index as int64 that counts from the start; None where it selects no less.

        A number outside is an error, as it was; not every operation that selects checks it.
        """
        call, size = self._writer.once, fake_tensor(value).shape[axis]
        length = fake_tensor(index).shape[-1]
        if example_size(length) >= example_size(size):
            return None
        if fake_tensor(index).dtype != torch.int64:
            index = call(_aten.to.dtype, index, torch.int64)
        count = self._writer.size(size)
        if count is None:
            return None
        every = call(_aten.arange.default, count, device=fake_tensor(index).device)
        return call(_aten.index.Tensor, every, [index])


def stretch_of(node: fx.Node) -> Selection | None:
    """Return what a slice or a single entry selects, where that is less than all."""
    given: dict[str, Any] = bound(node)
    value, axis = given["self"], given["dim"] % fake_tensor(given["self"]).ndim
    size: Any = fake_tensor(value).shape[axis]
    if node.target is _aten.select.int:
        index = given["index"]
        if not isinstance(index, int) or expression(size) == 1:
            return None
        last = index + 1 if index != -1 else sys.maxsize
        return Selection(value, Read(axis, 1, span=(index, last)), False)
    start, end = given["start"] or 0, given["end"]
    if given["step"] != 1 or not all(isinstance(one, int) for one in (start, end, size)):
        return None
    first, last, _ = slice(start, end).indices(size)
    if not 0 < last - first < size:
        return None
    return Selection(value, Read(axis, last - first, span=(first, last)), True)


def _is_natural(node: fx.Node) -> bool:
    """Whether the entries of a value cannot be negative."""
    if is_named(node, "argmax", "argmin", "arange", "argsort"):
        given = bound(node)
        return isinstance(start := given.get("start", 0), int) and start >= 0
    if isinstance(node.meta["val"], torch.Tensor) and fake_tensor(node).dtype == torch.bool:
        return True
    if is_named(node, "mul"):
        return all(isinstance(one, fx.Node) and _is_natural(one) for one in node.args)
    if is_named(node, "amax", "to", "_to_copy", "unsqueeze", "alias", "clone"):
        value = node.args[0]
        return isinstance(value, fx.Node) and _is_natural(value)
    return False
