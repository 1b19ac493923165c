"""Rules for reshapes and merges of an axis of fixed length, by factors of dimensions."""

from __future__ import annotations

import contextlib
import operator
from typing import Any

import sympy
from torch import fx

from graphprog.ir.fake import fake_tensor, fake_value
from graphprog.ir.ops import schema_name
from graphprog.ir.sizes import expression, has_length, same_size
from graphprog.passes.extend_axis.context import Context, Demands
from graphprog.passes.extend_axis.reshape_factors import (
    Factors,
    SplitError,
    length,
    reshaped,
    whole,
)
from graphprog.rewriting.refusal import RefusalError

MERGES = {"aten::flatten", "aten::repeat", "aten::repeat_interleave"}


def adapt_reshape(context: Context, node: fx.Node, wanted: Demands | None) -> None:
    """Set the literals of a reshape to the lengths implied by its input."""
    if wanted:
        _demand_reshaped(context, node, wanted)
    source = node.args[0]
    assert isinstance(source, fx.Node)
    old = context.old_value(node)
    try:
        parts = reshaped(_parts(context, source), list(old.shape))
    except SplitError as error:
        raise RefusalError(node, f"the axis cannot be followed, {error}") from error
    first = 1 if schema_name(node) != "aten::unflatten" else 2
    rank = fake_tensor(source).ndim
    start = 0 if first == 1 else int(node.args[1]) % rank  # type: ignore[arg-type]
    sizes = node.args[first]
    assert isinstance(sizes, list | tuple)
    for slot, leaf in enumerate(sizes, first):
        dim = start + slot - first
        before, after = expression(old.shape[dim]), length(parts[dim])
        if before == after or leaf == -1:
            continue
        if isinstance(leaf, int):
            context.put(node, slot, int(after))
        else:  # a dynamic size times the length, which is a number
            ratio = sympy.cancel(after / before)
            less = context.copy_call(operator.floordiv, (leaf, int(ratio.q)), leaf)
            context.put(node, slot, context.copy_call(operator.mul, (less, int(ratio.p)), leaf))
    _note(context, node, parts)


def record_merge(context: Context, node: fx.Node, wanted: Demands | None) -> None:
    """Record the factors of the dimensions of a merge without literals."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    parts = _parts(context, source)
    if schema_name(node) == "aten::flatten":
        with contextlib.suppress(SplitError):
            _note(context, node, reshaped(parts, list(context.old_value(node).shape)))
    elif schema_name(node) == "aten::repeat":
        counts: Any = node.args[1]
        sizes = [fake_value(count) if isinstance(count, fx.Node) else count for count in counts]
        times = [whole(size, size) for size in sizes]
        parts = [()] * (len(times) - len(parts)) + parts
        _note(context, node, [(*outer, *inner) for outer, inner in zip(times, parts, strict=True)])
    elif len(node.args) == 3 and not isinstance(node.args[1], fx.Node):
        count: Any = node.args[1]
        dim = int(node.args[2]) % len(parts)  # type: ignore[arg-type]
        parts[dim] = (*parts[dim], *whole(count, count))
        _note(context, node, parts)


def _note(context: Context, node: fx.Node, parts: list[Factors]) -> None:
    for dim, factors in enumerate(parts):
        if len(factors) > 1 and any(factor.moves for factor in factors):
            context.factors[node, dim] = factors


def _parts(context: Context, node: fx.Node) -> list[Factors]:
    """Return the parts of every dimension of a node's current value."""
    old, new = context.old_value(node), fake_tensor(node)
    found = []
    for dim, (before, after) in enumerate(zip(old.shape, new.shape, strict=True)):
        known = context.factors.get((node, dim))
        if known is None and not same_size(before, after):
            known = _inherited(context, node, before, after)
        found.append(known or whole(before, after))
    return found


def _inherited(context: Context, node: fx.Node, before: Any, after: Any) -> Factors | None:
    """Return the parts of a merged dimension, from the operand that has it unchanged."""
    seen: set[fx.Node] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        for (owner, _), factors in context.factors.items():
            if owner is current and length(factors) == expression(after):
                return factors
        fresh = [
            part
            for part in current.all_input_nodes
            if part not in seen
            and part in context.before
            and has_length(context.before[part], before)
            and has_length(fake_tensor(part), after)
        ]
        seen.update(fresh)
        stack += fresh
    return None


def _demand_reshaped(context: Context, node: fx.Node, wanted: Demands) -> None:
    """Request the input dimension of a reshape that determines the wanted one."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    shape, target = fake_tensor(source).shape, list(context.old_value(node).shape)
    grown = {expression(size) for size in wanted.values()}
    for dim, size in enumerate(shape):
        for new in wanted.values():
            if not same_size(size, context.axis.size):
                continue
            parts = [whole(one, new if at == dim else one) for at, one in enumerate(shape)]
            try:
                result = [length(factors) for factors in reshaped(parts, target)]
            except SplitError:
                continue
            if all(result[at] == expression(one) for at, one in wanted.items()) and grown:
                context.put(node, 0, context.demand(source, {dim: new}, additive=False))
                return
