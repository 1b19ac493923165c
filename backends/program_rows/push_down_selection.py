"""Rows that nobody reads are not computed.

A classifier that reads one token after its last block needs no other token of that block but in
its keys and values. A selection moves backwards through operations that treat every row by itself,
to where rows are mixed, or where something else reads the others too.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import torch
from torch import fx

from graphprog.backends.program_rows.row_axes import (
    RESHAPES,
    arguments_of,
    first_argument,
    row_arguments,
    shape_of,
)
from graphprog.backends.program_rows.vmap import expression
from graphprog.ir.fake import fake_tensor

_aten = torch.ops.aten


class Read(NamedTuple):
    """A stretch of an axis, of which there is more."""

    axis: int
    start: int
    end: int
    length: int


def push_down_selection(module: fx.GraphModule) -> None:
    """Move selections of rows as far back as they may go, in place.

    Args:
        module: of an exported program, with the value of each node in its metadata; one with
            operations that change their arguments stays as it is.
    """
    graph = module.graph
    if any(_writes(node) for node in graph.nodes):
        return
    reads: dict[fx.Node, dict[fx.Node, Read]] = {}
    fewer: dict[fx.Node, Read] = {}
    for node in reversed(graph.nodes):
        read = _selected(node)
        arguments = [(first_argument(node), read.axis)] if read is not None else None
        if arguments is None and (read := _common(node, reads.get(node, {}))) is not None:
            arguments = row_arguments(node, read.axis)
            if arguments is not None:
                fewer[node] = read
        for argument, axis in arguments or []:
            assert read is not None
            reads.setdefault(argument, {})[node] = read._replace(axis=axis)
    for node, readers in reads.items():
        _select(node, readers, fewer)
    graph.lint()
    module.recompile()


def _common(node: fx.Node, reads: dict[fx.Node, Read]) -> Read | None:
    """What all that read a value read of it, if that is the same."""
    found = set(reads.values())
    return found.pop() if len(found) == 1 and len(reads) == len(node.users) else None


def _select(node: fx.Node, readers: dict[fx.Node, Read], fewer: dict[fx.Node, Read]) -> None:
    """Compute fewer rows of a value, or hand fewer of them to those that need no others."""
    if node in fewer:
        if node.target in RESHAPES:
            sizes = list(arguments_of(node)[1])
            sizes[fewer[node].axis] = fewer[node].length
            node.target, node.args = _aten.reshape.default, (node.args[0], sizes)
        node.meta["val"] = _narrowed(node, fewer[node])
        for reader in readers.keys() - fewer.keys():  # the selections: of a slice, all is left
            reader.args = (node, arguments_of(reader)[1], 0)
        return
    for read in set(readers.values()):
        with node.graph.inserting_after(node):
            options = (node, read.axis, read.start, read.end)
            found = node.graph.call_function(_aten.slice.Tensor, options)
        found.meta = {**node.meta, "val": _narrowed(node, read)}
        for reader in (own for own, wanted in readers.items() if wanted == read and own in fewer):
            reader.replace_input_with(node, found)
        if not found.users:
            node.graph.erase_node(found)


def _writes(node: fx.Node) -> bool:
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _selected(node: fx.Node) -> Read | None:
    """Which rows a node selects, where that is only some of those that there are."""
    if node.target not in (_aten.select.int, _aten.slice.Tensor):
        return None
    whole = (0, 0, sys.maxsize, 1)
    given = arguments_of(node)[1:]
    axis, start, end, step = given + list(whole[len(given) :])
    shape = shape_of(first_argument(node))
    axis %= len(shape)
    size = shape[axis]
    if node.target is _aten.select.int:
        last = start + 1 if start != -1 else sys.maxsize
        some = isinstance(start, int) and expression(size) != 1
        return Read(axis, start, last, 1) if some else None
    if step != 1 or not all(isinstance(value, int) for value in (start, end, size)):
        return None
    first, last, _ = slice(start, end).indices(size)
    return Read(axis, first, last, last - first) if 0 < last - first < size else None


def _narrowed(value: fx.Node, read: Read) -> torch.Tensor:
    found: torch.Tensor = fake_tensor(value)
    shape = list(found.shape)
    shape[read.axis] = read.length
    return found.new_empty(shape)
