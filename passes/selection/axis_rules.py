"""Which arguments of an operation hold the rows of its result.

A rule holds for operations that compute every row along an axis independently: some rows of the
result need the same rows of an argument, along one of its axes.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphprog.ir.dependence.layer_rules import LAYER_RULES
from graphprog.ir.dependence.rule_table import Batch, Rows
from graphprog.ir.dependence.view_rules import VIEW_RULES, takes_all
from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import bound, schema_name
from graphprog.ir.sizes import expression, same_size

_aten = torch.ops.aten
Argument = tuple[fx.Node, int]
Rule = Callable[[fx.Node, int], "list[Argument] | None"]
"""For an operation and an axis of its result: which arguments hold the same rows, at which axis."""

RULES: dict[Any, Rule] = {}

_FOLLOWED = frozenset(
    f"aten::{name}"
    for name in (
        *(
            "mean",
            "sum",
            "amax",
            "amin",
            "argmax",
            "argmin",
            "any",
            "all",
            "var",
            "std",
            "logsumexp",
        ),
        *("linalg_vector_norm", "prod", "cumsum", "log_softmax", "_log_softmax", "flip", "roll"),
        *(
            "squeeze",
            "select",
            "unbind",
            "split",
            "split_with_sizes",
            "chunk",
            "movedim",
            "t",
            "mT",
        ),
        *("to", "_to_copy", "type_as", "embedding", "one_hot", "swapaxes", "glu"),
    )
)
"""Operations on one tensor whose rules of the batch hold for any axis."""


def row_arguments(value: fx.Node, axis: int) -> list[Argument] | None:
    """As :data:`Rule`; None where the operation is needed as a whole."""
    if is_pointwise(value) and value.target not in RULES:
        return list(_aligned(value, axis)) or None
    if value.target in RULES:
        found = RULES[value.target](value, axis)
    elif schema_name(value) in _FOLLOWED:
        found = _followed(value, axis)
    else:
        return None
    axes: dict[fx.Node, set[int]] = {}
    for argument, own in found or []:
        axes.setdefault(argument, set()).add(own)
    alike = all(len(own) == 1 for own in axes.values())
    return found if alike and _are_read_once(value, found or []) else None


def _are_read_once(value: fx.Node, found: list[Argument]) -> bool:
    """Whether an operation reads these arguments in no other place, as keys that are queries."""
    leaves = pytree.tree_leaves((value.args, value.kwargs))
    given = Counter(one for one in leaves if isinstance(one, fx.Node))
    return all(given[one] == count for one, count in Counter(one for one, _ in found).items())


def is_pointwise(value: fx.Node) -> bool:
    """Whether an operation broadcasts its operands, and computes every entry by itself."""
    if schema_name(value) in ("aten::where", "aten::masked_fill"):
        return True
    tags = getattr(value.target, "tags", ())
    return torch.Tag.pointwise in tags and torch.Tag.nondeterministic_seeded not in tags


def _followed(value: fx.Node, axis: int) -> list[Argument] | None:
    """Find the axis of the operand that a rule of the batch takes to this axis of the result."""
    given = bound(value)
    operand = given["indices"] if schema_name(value) == "aten::embedding" else value.args[0]
    rule = (LAYER_RULES | VIEW_RULES)[schema_name(value)]
    assert isinstance(operand, fx.Node)
    found = [
        own
        for own in range(len(shape_of(operand)))
        if rule(value, given, Rows({operand: own}, Batch(frozenset()))) == axis
    ]
    return [(operand, found[0])] if len(found) == 1 else None


def _rule(*operations: Any) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(operations, rule))
        return rule

    return register


def shape_of(value: fx.Node) -> tuple[int | torch.SymInt, ...]:
    """Sizes of a tensor, or of the first of several."""
    return tuple(pytree.tree_leaves(value.meta["val"])[0].shape)


def _aligned(
    value: fx.Node, axis: int, operands: Sequence[fx.Node] | None = None
) -> Iterator[Argument]:
    """Arguments that are broadcast to the result, as far as they have its rows."""
    for argument in value.all_input_nodes if operands is None else operands:
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
    """Of a layer, fewer units are fewer rows of its weight and bias."""
    if axis < len(shape_of(value)) - 1:
        return [(first_argument(value), axis)]
    return [(one, 0) for one in value.args[1:] if isinstance(one, fx.Node)]


@_rule(operator.getitem)
def _part(value: fx.Node, axis: int) -> list[Argument] | None:
    whole = first_argument(value)
    unbinds = schema_name(whole) == "aten::unbind"
    splits = schema_name(whole) in ("aten::split", "aten::split_with_sizes", "aten::chunk")
    return [(whole, axis)] if unbinds or splits else None


@_rule(_aten.cat.default)
def _joined(value: fx.Node, axis: int) -> list[Argument] | None:
    own = bound(value)["dim"] % len(shape_of(value))
    return [(one, axis) for one in bound(value)["tensors"]] if own != axis else None


@_rule(_aten.expand.default)
def _expanded(value: fx.Node, axis: int) -> list[Argument] | None:
    """Entries that are all the same are made fewer."""
    return list(_aligned(value, axis, (first_argument(value),)))


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
    """Queries attend one by one; a causal mask by order becomes one by their numbers."""
    given = bound(value)
    if axis != len(shape_of(value)) - 2 or given.get("dropout_p"):
        return None
    query, key, mask = given["query"], given["key"], given["attn_mask"]
    if given["is_causal"] and not same_size(shape_of(query)[-2], shape_of(key)[-2]):
        return None
    found = [(query, axis)]
    if isinstance(mask, fx.Node):
        own = len(shape_of(mask)) - 2
        if own >= 0 and expression(shape_of(mask)[own]) != 1:
            found.append((mask, own))
    return found


@_rule(_aten.slice.Tensor)
def _sliced(value: fx.Node, axis: int) -> list[Argument] | None:
    own = [*arguments_of(value), 0][1] % len(shape_of(value))
    return [(first_argument(value), axis)] if own != axis or takes_all(value) else None


@_rule(_aten.unsqueeze.default)
def _unsqueezed(value: fx.Node, axis: int) -> list[Argument] | None:
    new = arguments_of(value)[1] % len(shape_of(value))
    return [(first_argument(value), axis - (axis > new))] if axis != new else None


@_rule(_aten.unflatten.int)
def _unflattened(value: fx.Node, axis: int) -> list[Argument] | None:
    first, count = bound(value)["dim"], len(bound(value)["sizes"])
    first %= len(shape_of(first_argument(value)))
    if first <= axis < first + count:
        return None
    return [(first_argument(value), axis if axis < first else axis - count + 1)]


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


@_rule(*RESHAPES, _aten.flatten.using_ints)
def _reshaped(value: fx.Node, axis: int) -> list[Argument] | None:
    """An axis that is the same before and after: what comes before it has as many entries."""
    after = [expression(size) for size in shape_of(value)]
    before = [expression(size) for size in shape_of(first_argument(value))]
    for own, size in enumerate(before):
        if size == after[axis] and math.prod(before[:own]) == math.prod(after[:axis]):
            return [(first_argument(value), own)]
    return None
