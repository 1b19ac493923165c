"""Literal search: the smallest change of literals and operands under which an operation runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from graphprog.analysis.constants import counts_entries
from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import schema_name
from graphprog.ir.sizes import Size, differ, same_size
from graphprog.passes.extend_axis.ambiguity import never_lengths
from graphprog.passes.extend_axis.context import Context, Demands
from graphprog.rewriting.edges import leaves_of
from graphprog.rewriting.fake_execution import FailedError, read_values, run_on
from graphprog.rewriting.refusal import RefusalError

_ADDS = {"aten::add", "aten::add_"}
_MOST = 3
_UNDECIDED = "several of its lengths may be the axis, and nothing decides"

Option = tuple[int, int | None, Any]
"""A change to try: leaf, its dimension or None for a literal, and the new length."""


def has_lengths(value: Any, wanted: Demands) -> bool:
    """Whether a value is a tensor that has the wanted lengths."""
    return isinstance(value, torch.Tensor) and all(
        same_size(value.shape[dim], size) for dim, size in wanted.items()
    )


def search_lengths(context: Context, node: fx.Node, wanted: Demands, reason: str) -> None:
    """Apply the smallest change of literals and operands with which a node runs.

    Args:
        context: context of the extension.
        node: the node that does not run unchanged.
        wanted: required lengths of the result.
        reason: why it does not run.

    Raises:
        RefusalError: there is no such change, or there are two.
    """
    options = list(_options(context, node, wanted))
    for count in range(1, min(_MOST, len(options)) + 1):
        choices = itertools.combinations(options, count)
        working = [choice for choice in choices if _works(node, choice, wanted)]
        if len(working) > 1:
            raise RefusalError(node, _UNDECIDED)
        if working:
            if node in context.reach:  # of others, what reads them decides
                _refuse_more(node, working[0], options)
            _apply(context, node, working[0])
            return
    aligned = _aligned(context, node, options, wanted)
    if len(aligned) <= _MOST or not _works(node, aligned, wanted):
        raise RefusalError(node, cannot_follow(reason))
    _apply(context, node, aligned)


def cannot_follow(reason: str) -> str:
    """Return a refusal, with the first line of an operation's error if there is one."""
    line = reason.partition("\n")[0][:160]
    return "it cannot follow the longer axis" + (f" ({line})" if line else "")


def _refuse_more(node: fx.Node, choice: tuple[Option, ...], options: list[Option]) -> None:
    """Refuse to extend a value built from numbers if another of its dimensions may be the axis.

    Raises:
        RefusalError: the node runs as well, to a longer result, if another dimension is lengthened.
    """
    leaves = leaves_of(node)
    made = {slot for slot, dim, _ in choice if dim is not None and counts_entries(leaves[slot])}
    for option in options:
        if option[0] in made and option not in choice:
            found, longer = _result(node, choice), _result(node, (*choice, option))
            if longer is not None and differ(found, longer):
                raise RefusalError(node, _UNDECIDED)


def _aligned(
    context: Context, node: fx.Node, options: list[Option], wanted: Demands
) -> tuple[Option, ...]:
    """Return the lengths that broadcast to the wanted ones."""
    leaves, ndim = leaves_of(node), getattr(context.old_value(node), "ndim", 0)
    return tuple(
        (slot, dim, size)
        for slot, dim, size in options
        if dim is not None and dim + ndim - fake_tensor(leaves[slot]).ndim in wanted
    )


def _options(context: Context, node: fx.Node, wanted: Demands) -> Iterator[Option]:
    """Return every length in a node that equals the old length of an extended dimension."""
    shape = getattr(context.old_value(node), "shape", ())
    varying = [(shape[dim], size) for dim, size in wanted.items() if not isinstance(size, int)]
    lengths: dict[int, int] = {}
    if isinstance(context.axis.size, int):
        lengths[context.axis.size] = context.axis.size + context.axis.added
    for part in node.all_input_nodes:
        old, new = context.old_value(part), part.meta.get("val")
        if isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor):
            sizes: tuple[list[Size], list[Size]] = (list(old.shape), list(new.shape))
            for before, after in zip(*sizes, strict=False):
                if isinstance(before, int) and isinstance(after, int) and before != after:
                    lengths[before] = after
    never = never_lengths(node)
    for slot, leaf in enumerate(leaves_of(node)):
        number = isinstance(leaf, int) and not isinstance(leaf, bool)
        if number and leaf in lengths and slot not in never:
            yield slot, None, lengths[leaf]
        value = leaf.meta.get("val") if isinstance(leaf, fx.Node) else None
        if isinstance(value, torch.Tensor):
            shorter: list[Size] = list(context.old_value(leaf).shape)
            now: list[Size] = list(value.shape)
            for dim, size in enumerate(now):
                if isinstance(size, int) and size in lengths and same_size(shorter[dim], size):
                    yield slot, dim, lengths[size]
                yield from ((slot, dim, longer) for one, longer in varying if same_size(one, size))


def _works(node: fx.Node, choice: tuple[Option, ...], wanted: Demands) -> bool:
    """Whether the node runs with some lengths changed, and has the wanted lengths."""
    result = _result(node, choice)
    return result is not None and (not wanted or has_lengths(result, wanted))


def _result(node: fx.Node, choice: tuple[Option, ...]) -> Any:
    """Return the result of the node with some lengths changed; None if it does not run."""
    shapes: dict[int, list[Any]] = {}
    literals: dict[int, int] = {}
    leaves = leaves_of(node)
    for slot, dim, size in choice:
        if dim is None:
            literals[slot] = size
        else:
            shapes.setdefault(slot, list(fake_tensor(leaves[slot]).shape))[dim] = size
    values = read_values(node)
    for slot, size in literals.items():
        values[slot] = size
    for slot, shape in shapes.items():
        values[slot] = values[slot].new_empty(shape)
    try:
        return run_on(node, values)
    except FailedError:  # this choice is not the answer
        return None


def _apply(context: Context, node: fx.Node, choice: tuple[Option, ...]) -> None:
    """Apply the changes that work to the node."""
    demands: dict[int, dict[int, Any]] = {}
    for slot, dim, size in choice:
        if dim is None:
            context.put(node, slot, size)
        else:
            demands.setdefault(slot, {})[dim] = size
    additive = schema_name(node) in _ADDS
    for slot, wanted in demands.items():
        context.put(node, slot, context.demand(leaves_of(node)[slot], wanted, additive))
