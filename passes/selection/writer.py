"""New operations in code whose order is restored afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from graphprog.ir.fake import fake_tensor, fake_value
from graphprog.ir.ops import ancestors, schema_name
from graphprog.ir.sizes import expression
from graphprog.passes.selection.reads import Read
from graphprog.rewriting.fake_tracing import fake_mode_of, running

_aten = torch.ops.aten


class Writer:
    """Adds operations at the end of some code; it is sorted when all are there.

    Args:
        code: the operations.
        meta: further metadata of new nodes.
    """

    def __init__(self, code: fx.Graph, meta: dict[str, Any] | None = None) -> None:
        self.code = code
        self._meta = meta or {}
        self._made: dict[Any, fx.Node] = {}

    def call(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """Add an operation; its fake value comes from running it."""
        with self.code.inserting_before(self.code.output_node()):
            node = self.code.call_function(target, args, kwargs)
        values, named = fx.node.map_arg((args, kwargs), fake_value)
        with running(fake_mode_of(fake_tensor(self.code.find_nodes(op="placeholder")[0]))):
            node.meta = {"val": target(*values, **named), **self._meta}
        return node

    def write(self, target: Any, args: Any, kwargs: Any, value: Any) -> fx.Node:
        """Add an operation whose fake value is known."""
        with self.code.inserting_before(self.code.output_node()):
            node = self.code.call_function(target, args, kwargs)
        node.meta = {"val": value, **self._meta}
        return node

    def once(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """Add an operation, or return the one that was added before."""
        key = target, str(args), str(kwargs)
        if key not in self._made:
            self._made[key] = self.call(target, *args, **kwargs)
        return self._made[key]

    def size(self, wanted: int | torch.SymInt) -> int | fx.Node | None:
        """Return a size as an argument, computed from sizes of inputs; None if none is."""
        if isinstance(wanted, int):
            return wanted
        node: fx.Node
        for node in self.code.nodes:
            value = node.meta.get("val")
            if isinstance(value, torch.SymInt) and expression(value) == expression(wanted):
                sizes = [one for one in ancestors(node) if one.op != "placeholder"]
                if all(isinstance(one.meta.get("val"), torch.SymInt) for one in sizes):
                    return node
        for node in self.code.find_nodes(op="placeholder"):
            for axis, size in enumerate(fake_tensor(node).shape):
                if expression(size) == expression(wanted):
                    return self.once(_aten.sym_size.int, node, axis)
        return None

    def selected(self, value: fx.Node, read: Read, batch: int | None = 0, rank: int = 0) -> fx.Node:
        """Return the entries of a value.

        Args:
            value: the value.
            read: the entries.
            batch: its axis of rows, if each row has its own entries; None if it has none.
            rank: of the result; a value without rows gets them on axis 0.
        """
        if read.span is not None:
            return self.call(_aten.slice.Tensor, value, read.axis, *read.span)
        assert read.index is not None
        if not read.by_row:
            return self.call(_aten.index_select.default, value, read.axis, read.index)
        axis = read.axis
        if batch is None:
            for _ in range(rank - fake_tensor(value).ndim):
                value, axis = self.call(_aten.unsqueeze.default, value, 0), axis + 1
            batch = 0
        index = self.spread(read.index, fake_tensor(value).ndim, batch, axis)
        return self.call(_aten.take_along_dim.default, value, index, axis)

    def spread(self, index: fx.Node, rank: int, batch: int, axis: int) -> fx.Node:
        """Return an index [B, L] as a value with these two axes, and 1 on all others."""
        first, second = (batch, axis) if batch < axis else (axis, batch)
        if batch > axis:
            index = self.once(_aten.transpose.int, index, 0, 1)
        for _ in range(first):
            index = self.once(_aten.unsqueeze.default, index, 0)
        for _ in range(second - first - 1):
            index = self.once(_aten.unsqueeze.default, index, first + 1)
        for _ in range(rank - second - 1):
            index = self.once(_aten.unsqueeze.default, index, -1)
        return index

    def numbers(self, read: Read, size: int | fx.Node, device: torch.device) -> fx.Node:
        """Return the numbers of the entries: int64 [L], or [B, L] by row."""
        if read.index is not None:
            return read.index
        assert read.span is not None
        every = self.call(_aten.arange.default, size, device=device)
        return self.call(_aten.slice.Tensor, every, 0, *read.span)


def is_named(node: fx.Node, *names: str) -> bool:
    """Whether a node calls one of these operations of ATen."""
    return schema_name(node).removeprefix("aten::") in names
