"""Pointers: integers that say which entries of an axis are read, or written."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import fx

from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import CASTS, VIEWS, schema_name, values_of

_TABLES = {"aten::embedding", "aten::embedding_bag"}
_ALONG = {
    f"aten::{name}"
    for name in (
        *("index_select", "gather", "scatter", "scatter_add", "scatter_reduce", "index_add"),
        *("index_reduce", "index_copy"),
    )
}
_SAME_NUMBERS = (
    CASTS
    | VIEWS
    | {
        f"aten::{name}"
        for name in (
            *("unsqueeze", "squeeze", "expand_as", "repeat", "slice", "select", "narrow"),
            *("unbind", "split", "split_with_sizes", "chunk", "transpose", "permute", "t", "flip"),
            *("index", "index_select", "gather", "masked_select", "cat", "stack"),
            *("where", "masked_fill", "constant_pad_nd", "lift_fresh_copy"),
        )
    }
)
_FINDS = {
    f"aten::{name}"
    for name in (
        *("argmax", "argmin", "argsort", "nonzero", "sum", "cumsum", "count_nonzero", "bincount"),
        *("scatter_add", "any", "all", "one_hot"),
    )
}
"""Operations that count or find entries."""

POINTS = "points"
"""Key of the metadata of a value that has the pointers of an input, after entries were inserted."""


def name_of(node: fx.Node) -> str:
    """Return the input that a value is, or whose shifted pointers it has; empty for others."""
    return str(node.target) if node.op == "placeholder" else node.meta.get(POINTS, "")


def pointed(node: fx.Node) -> Iterator[tuple[fx.Node, int, fx.Node]]:
    """Yield each value that an operation reads or writes at pointers, dimension and pointers."""
    name = schema_name(node)
    args: tuple[Any, ...] = node.args
    if name in _TABLES:
        yield args[0], 0, args[1]
    elif name in ("aten::index", "aten::index_put"):
        for dim, place in enumerate(args[1]):
            if isinstance(place, fx.Node) and fake_tensor(place).dtype != torch.bool:
                yield args[0], dim, place
    elif name in _ALONG:
        source, dim, place = args[:3]
        yield source, dim % max(fake_tensor(source).ndim, 1), place


def pointer_inputs(place: fx.Node) -> tuple[set[str], fx.Node | None]:
    """Return the inputs whose numbers are some pointers, and an operation that computes with them.

    What is counted or found among the numbers of an input, such as the last entry of a mask, is not
    a number of that input.
    """
    found: set[str] = set()
    computed: fx.Node | None = None
    seen, stack = {place}, [place]
    while stack:
        node = stack.pop()
        value, name = node.meta.get("val"), schema_name(node)
        sizes = not isinstance(value, torch.Tensor | list | tuple)
        if sizes or name in _FINDS or (isinstance(value, torch.Tensor) and _is_data(value)):
            continue
        if named := name_of(node):
            found.add(named)
            continue
        parts = list(_numbers(name, node))
        if not (name in _SAME_NUMBERS or node.target is operator.getitem or _is_product(node)):
            computed = computed or (node if parts else None)
        fresh = [part for part in parts if isinstance(part, fx.Node) and part not in seen]
        seen.update(fresh)
        stack += fresh
    return found, computed if found else None


def _numbers(name: str, node: fx.Node) -> Iterable[Any]:
    """Return the operands whose numbers a result has, or is computed from."""
    if _is_product(node):
        return ()
    if name in ("aten::cat", "aten::stack"):
        return node.args[0]  # type: ignore[return-value]
    if name == "aten::where":
        return node.args[1:]
    if name in _SAME_NUMBERS or node.target is operator.getitem:
        return node.args[:1]
    return filter(_is_tensor, values_of(node))


def _is_product(node: fx.Node) -> bool:
    """Whether integers are multiplied by others, as masks are."""
    return schema_name(node) == "aten::mul" and all(map(_is_tensor, node.args))


def _is_tensor(node: Any) -> bool:
    return isinstance(node, fx.Node) and isinstance(node.meta.get("val"), torch.Tensor)


def _is_data(value: torch.Tensor) -> bool:
    """Whether a value is not numbers of entries: floats, or the answer to a question."""
    return value.is_floating_point() or value.dtype == torch.bool
