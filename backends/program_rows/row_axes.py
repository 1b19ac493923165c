"""Which arguments of an operation hold the rows of its result.

A rule holds for operations that compute every row along an axis independently: some rows of the
result need the same rows of an argument, along one of its axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx

from graphprog.backends.program_rows.vmap import expression
from graphprog.ir.fake import fake_tensor

_aten = torch.ops.aten
Argument = tuple[fx.Node, int]
Rule = Callable[[fx.Node, int], "list[Argument] | None"]
"""For an operation and an axis of its result: which arguments hold the same rows, at which axis."""

RULES: dict[Any, Rule] = {}


def row_arguments(value: fx.Node, axis: int) -> list[Argument] | None:
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


def shape_of(value: fx.Node) -> tuple[int | torch.SymInt, ...]:
    """Sizes of a tensor."""
    return tuple(fake_tensor(value).shape)


def _aligned(value: fx.Node, axis: int) -> Iterator[Argument]:
    """Arguments that are broadcast to the result, as far as they have its rows."""
    for argument in value.all_input_nodes:
        if isinstance(fake_tensor(argument), torch.Tensor):
            shape = shape_of(argument)
            own = axis - len(shape_of(value)) + len(shape)
            if own >= 0 and expression(shape[own]) != 1:
                yield argument, own


def arguments_of(value: fx.Node) -> list[Any]:
    """What an operation is called with, by position."""
    return list(value.args)


def first_argument(value: fx.Node) -> fx.Node:
    """The value that an operation reads first."""
    argument = value.args[0]
    assert isinstance(argument, fx.Node)
    return argument


@_rule(_aten.alias.default, _aten.clone.default, _aten.contiguous.default, _aten.detach.default)
def _same(value: fx.Node, axis: int) -> list[Argument] | None:
    return [(first_argument(value), axis)]


@_rule(_aten.dropout.default)
def _dropout(value: fx.Node, axis: int) -> list[Argument] | None:
    return None if arguments_of(value)[2] else [(first_argument(value), axis)]


@_rule(_aten.linear.default)
def _linear(value: fx.Node, axis: int) -> list[Argument] | None:
    return [(first_argument(value), axis)] if axis < len(shape_of(value)) - 1 else None


@_rule(_aten.matmul.default, _aten.bmm.default)
def _product(value: fx.Node, axis: int) -> list[Argument] | None:
    rows = axis == len(shape_of(value)) - 2 and len(shape_of(first_argument(value))) == axis + 2
    return [(first_argument(value), axis)] if rows else None


@_rule(_aten.layer_norm.default, _aten.rms_norm.default)
def _normalized(value: fx.Node, axis: int) -> list[Argument] | None:
    normalized = len(arguments_of(value)[1])
    return [(first_argument(value), axis)] if axis < len(shape_of(value)) - normalized else None


@_rule(_aten.softmax.int, _aten._softmax.default)
def _softmax(value: fx.Node, axis: int) -> list[Argument] | None:
    own = arguments_of(value)[1] % len(shape_of(value))
    return [(first_argument(value), axis)] if own != axis else None


@_rule(_aten.scaled_dot_product_attention.default)
def _attention(value: fx.Node, axis: int) -> list[Argument] | None:
    """Queries are attended to one by one, but for the order that a causal mask reads."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = dict(zip(names, value.args, strict=False)) | value.kwargs
    if axis != len(shape_of(value)) - 2 or given.get("is_causal") or given.get("dropout_p"):
        return None
    found = [(first_argument(value), axis)]
    mask = given.get("attn_mask")
    if isinstance(mask, fx.Node):
        own = len(shape_of(mask)) - 2
        if own >= 0 and expression(shape_of(mask)[own]) != 1:
            found.append((mask, own))
    return found


@_rule(_aten.slice.Tensor)
def _sliced(value: fx.Node, axis: int) -> list[Argument] | None:
    own = [*arguments_of(value), 0][1] % len(shape_of(value))
    return [(first_argument(value), axis)] if own != axis else None


@_rule(_aten.unsqueeze.default)
def _unsqueezed(value: fx.Node, axis: int) -> list[Argument] | None:
    new = arguments_of(value)[1] % len(shape_of(value))
    return [(first_argument(value), axis - (axis > new))] if axis != new else None


@_rule(_aten.permute.default)
def _permuted(value: fx.Node, axis: int) -> list[Argument] | None:
    order = arguments_of(value)[1]
    return [(first_argument(value), order[axis] % len(order))]


@_rule(_aten.transpose.int)
def _transposed(value: fx.Node, axis: int) -> list[Argument] | None:
    count = len(shape_of(value))
    one, other = (dimension % count for dimension in arguments_of(value)[1:])
    return [(first_argument(value), {one: other, other: one}.get(axis, axis))]


RESHAPES = (_aten.view.default, _aten.reshape.default, _aten._unsafe_view.default)


@_rule(*RESHAPES)
def _reshaped(value: fx.Node, axis: int) -> list[Argument] | None:
    """An axis that is the same before and after: what comes before it has as many entries."""
    after = [expression(size) for size in shape_of(value)]
    before = [expression(size) for size in shape_of(first_argument(value))]
    for own, size in enumerate(before):
        if size == after[axis] and math.prod(before[:own]) == math.prod(after[:axis]):
            return [(first_argument(value), own)]
    return None
