"""Rows that nobody reads are not computed.

A classifier that reads one token behind its last block needs no other token of that block but in
its keys and values. A selection moves backwards through operations that treat every row by itself,
to where rows are mixed, or where something else reads the others too.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import fx

from graphprog.backends.rows import expression

_aten = torch.ops.aten
Argument = tuple[fx.Node, int]
Rule = Callable[[fx.Node, int], "list[Argument] | None"]
"""For an operation and an axis of its result: which arguments hold the same rows, at which axis."""

RULES: dict[Any, Rule] = {}


class Read(NamedTuple):
    """A stretch of an axis, of which there is more."""

    axis: int
    start: int
    end: int
    length: int


def leave_out_unread_rows(module: fx.GraphModule) -> None:
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
        arguments = [(_first(node), read.axis)] if read is not None else None
        if arguments is None and (read := _common(node, reads.get(node, {}))) is not None:
            arguments = _arguments(node, read.axis)
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
        if node.target in _RESHAPES:
            sizes = list(_given(node)[1])
            sizes[fewer[node].axis] = fewer[node].length
            node.target, node.args = _aten.reshape.default, (node.args[0], sizes)
        node.meta["val"] = _narrowed(node, fewer[node])
        for reader in readers.keys() - fewer.keys():  # the selections: of a slice, all is left
            reader.args = (node, _given(reader)[1], 0)
        return
    for read in set(readers.values()):
        with node.graph.inserting_after(node):
            options = (node, read.axis, read.start, read.end)
            found = node.graph.call_function(_aten.slice.Tensor, options)
        found.meta["val"] = _narrowed(node, read)
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
    given = _given(node)[1:]
    axis, start, end, step = given + list(whole[len(given) :])
    shape = _shape(_first(node))
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
    found: torch.Tensor = value.meta["val"]
    shape = list(found.shape)
    shape[read.axis] = read.length
    return found.new_empty(shape)


def _arguments(value: fx.Node, axis: int) -> list[Argument] | None:
    """As :data:`Rule`; None where the operation is needed as a whole."""
    if not isinstance(value.target, torch._ops.OpOverload):
        return None
    if value.target in RULES:
        found = RULES[value.target](value, axis)
    elif torch.Tag.pointwise in value.target.tags and not _random(value.target):
        found = list(_aligned(value, axis))
    else:
        return None
    axes: dict[fx.Node, set[int]] = {}
    for argument, own in found or []:
        axes.setdefault(argument, set()).add(own)
    return found if found and all(len(own) == 1 for own in axes.values()) else None


def _random(operation: torch._ops.OpOverload) -> bool:
    return torch.Tag.nondeterministic_seeded in operation.tags


def _rule(*operations: Any) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(operations, rule))
        return rule

    return register


def _shape(value: fx.Node) -> tuple[int | torch.SymInt, ...]:
    return tuple(value.meta["val"].shape)


def _aligned(value: fx.Node, axis: int) -> Iterator[Argument]:
    """Arguments that are broadcast to the result, as far as they have its rows."""
    for argument in value.all_input_nodes:
        if isinstance(argument.meta["val"], torch.Tensor):
            shape = _shape(argument)
            own = axis - len(_shape(value)) + len(shape)
            if own >= 0 and expression(shape[own]) != 1:
                yield argument, own


def _given(value: fx.Node) -> list[Any]:
    return list(value.args)


def _first(value: fx.Node) -> fx.Node:
    argument = value.args[0]
    assert isinstance(argument, fx.Node)
    return argument


@_rule(_aten.alias.default, _aten.clone.default, _aten.contiguous.default, _aten.detach.default)
def _same(value: fx.Node, axis: int) -> list[Argument] | None:
    return [(_first(value), axis)]


@_rule(_aten.dropout.default)
def _dropout(value: fx.Node, axis: int) -> list[Argument] | None:
    return None if _given(value)[2] else [(_first(value), axis)]


@_rule(_aten.linear.default)
def _linear(value: fx.Node, axis: int) -> list[Argument] | None:
    return [(_first(value), axis)] if axis < len(_shape(value)) - 1 else None


@_rule(_aten.matmul.default, _aten.bmm.default)
def _product(value: fx.Node, axis: int) -> list[Argument] | None:
    rows = axis == len(_shape(value)) - 2 and len(_shape(_first(value))) == axis + 2
    return [(_first(value), axis)] if rows else None


@_rule(_aten.layer_norm.default, _aten.rms_norm.default)
def _normalised(value: fx.Node, axis: int) -> list[Argument] | None:
    normalised = len(_given(value)[1])
    return [(_first(value), axis)] if axis < len(_shape(value)) - normalised else None


@_rule(_aten.softmax.int, _aten._softmax.default)
def _softmax(value: fx.Node, axis: int) -> list[Argument] | None:
    own = _given(value)[1] % len(_shape(value))
    return [(_first(value), axis)] if own != axis else None


@_rule(_aten.scaled_dot_product_attention.default)
def _attention(value: fx.Node, axis: int) -> list[Argument] | None:
    """Queries are attended to one by one, but for the order that a causal mask reads."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = dict(zip(names, value.args, strict=False)) | value.kwargs
    if axis != len(_shape(value)) - 2 or given.get("is_causal") or given.get("dropout_p"):
        return None
    found = [(_first(value), axis)]
    mask = given.get("attn_mask")
    if isinstance(mask, fx.Node):
        own = len(_shape(mask)) - 2
        if own >= 0 and expression(_shape(mask)[own]) != 1:
            found.append((mask, own))
    return found


@_rule(_aten.slice.Tensor)
def _sliced(value: fx.Node, axis: int) -> list[Argument] | None:
    own = [*_given(value), 0][1] % len(_shape(value))
    return [(_first(value), axis)] if own != axis else None


@_rule(_aten.unsqueeze.default)
def _unsqueezed(value: fx.Node, axis: int) -> list[Argument] | None:
    new = _given(value)[1] % len(_shape(value))
    return [(_first(value), axis - (axis > new))] if axis != new else None


@_rule(_aten.permute.default)
def _permuted(value: fx.Node, axis: int) -> list[Argument] | None:
    order = _given(value)[1]
    return [(_first(value), order[axis] % len(order))]


@_rule(_aten.transpose.int)
def _transposed(value: fx.Node, axis: int) -> list[Argument] | None:
    count = len(_shape(value))
    one, other = (dimension % count for dimension in _given(value)[1:])
    return [(_first(value), {one: other, other: one}.get(axis, axis))]


_RESHAPES = (_aten.view.default, _aten.reshape.default, _aten._unsafe_view.default)


@_rule(*_RESHAPES)
def _reshaped(value: fx.Node, axis: int) -> list[Argument] | None:
    """An axis that is the same before and after: what is in front of it has as many entries."""
    after = [expression(size) for size in _shape(value)]
    before = [expression(size) for size in _shape(_first(value))]
    for own, size in enumerate(before):
        if size == after[axis] and math.prod(before[:own]) == math.prod(after[:axis]):
            return [(_first(value), own)]
    return None
