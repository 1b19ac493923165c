"""Where the rows of a batch lie in each value, proved operation by operation.

A value has rows if row ``r`` of the batch decides the entries of one stretch of one axis, and
nothing else decides them but weights and the program. An operation without a rule may mix rows.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any

import sympy
import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphprog.ir.dependence.layer_rules import LAYER_RULES, pointwise
from graphprog.ir.dependence.rule_table import Batch, Rows, Rule, aligned, is_one, rank_of
from graphprog.ir.dependence.view_rules import VIEW_RULES, takes_all
from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import CASTS, REGROUPS, VIEWS, bound, schema_name, values_of
from graphprog.ir.sizes import counts_data, expression, is_symbolic

_RULES = {**LAYER_RULES, **VIEW_RULES}
_FILLS = {
    f"aten::{name}"
    for base in ("zeros", "ones", "full")
    for name in (base, f"new_{base}", f"{base}_like")
}
_REPEATS = {"aten::expand", "aten::expand_as", "aten::repeat"}
_SHAPED = _FILLS | _REPEATS | VIEWS | {"aten::arange"}
"""Operations that may be given the size of the batch."""
_KEEP_ENTRIES = (
    CASTS | VIEWS | {"aten::unsqueeze", "aten::slice", "aten::alias", "aten::lift_fresh_copy"}
)
_ENTRYWISE = CASTS | {f"aten::{name}" for name in ("linear", "layer_norm", "dropout", "alias")}
"""Operations that compute each entry along the axis of the rows by itself."""
_SIZES = {f"aten::sym_{name}" for name in ("size", "numel", "stride", "storage_offset")}


@dataclasses.dataclass(frozen=True)
class Mixed:
    """A value whose rows may depend on one another, from this operation on."""

    node: fx.Node


@dataclasses.dataclass(frozen=True)
class Interleaved:
    """Rows that lie on an axis several times, once in each of ``outer`` equal parts of it."""

    axis: int
    outer: Any


@dataclasses.dataclass(frozen=True)
class _Counter:
    """A value whose entries are the numbers of the rows, 0 to B - 1, along an axis."""

    axis: int


Place = int | Interleaved | None | Mixed
"""The axis on which the rows lie; None for a value that is the same for any batch."""


def batch_of(code: fx.Graph) -> Batch | None:
    """Return the number of rows, from axis 0 of all inputs; None if it is fixed in one of them."""
    inputs = [fake_tensor(node) for node in code.find_nodes(op="placeholder")]
    sizes = [expression(value.shape[0]) if value.ndim else None for value in inputs]
    symbols = frozenset(size for size in sizes if isinstance(size, sympy.Symbol))
    return Batch(symbols) if sizes and all(size in symbols for size in sizes) else None


def batch_rows(code: fx.Graph) -> dict[fx.Node, Place]:
    """Find the axis of the batch in every tensor of a graph.

    Along axis 0 of the inputs lie the rows; all inputs have equally many. In any value, rows lie in
    order on one axis, each with the same number of entries.
    """
    batch = batch_of(code)
    found: dict[fx.Node, Any] = {}
    for node in code.nodes:
        if node.op == "placeholder":
            alone = batch is not None and not batch.among(fake_tensor(node).shape[1:])
            found[node] = 0 if alone else Mixed(node)
        else:
            found[node] = _place(node, found, batch) if node.op == "call_function" else None
    return {
        node: Mixed(node) if isinstance(place, _Counter) else place  # it is not of a sample
        for node, place in found.items()
    }


def depends_on(node: fx.Node) -> list[fx.Node]:
    """Return the operands on which a value depends; of sizes, only on those that count data."""
    value = node.meta.get("val")
    if any(counts_data(size) for size in _sizes_of(value)):
        return list(node.all_input_nodes)
    return [] if schema_name(node) in _SIZES else values_of(node)


def _sizes_of(value: Any) -> list[Any]:
    leaves = pytree.tree_leaves(value)
    sizes = [size for one in leaves if isinstance(one, torch.Tensor) for size in one.shape]
    return [one for one in [*leaves, *sizes] if isinstance(one, torch.SymInt)]


def _place(node: fx.Node, found: Mapping[fx.Node, Any], batch: Batch | None) -> Any:
    value = node.meta.get("val")
    read = depends_on(node)
    for part in read:
        if isinstance(found[part], Mixed):
            return found[part]
    if batch is None:
        return None
    batched = {part: found[part] for part in read if found[part] is not None}
    tensors = any(isinstance(one, torch.Tensor) for one in pytree.tree_leaves(value))
    if any(map(counts_data, _sizes_of(value))) or (batched and not tensors):
        return Mixed(node)
    if not tensors:
        return None
    if _counts_rows(node, batch):
        return Mixed(node)
    if not batched:
        return _made(node, value, batch)
    if any(isinstance(place, _Counter) for place in batched.values()):
        return _counted(node, batched, batch)
    return _ruled(node, batched, batch)


def _counts_rows(node: fx.Node, batch: Batch) -> bool:
    """Whether an operation computes with the size of the batch, and not only shapes its result."""
    leaves = pytree.tree_leaves((node.args, node.kwargs))
    given = [leaf.meta.get("val") if isinstance(leaf, fx.Node) else leaf for leaf in leaves]
    if not batch.among(filter(is_symbolic, given)):
        return False
    name = schema_name(node)
    filled = bound(node).get("fill_value")
    if isinstance(filled, fx.Node) and is_symbolic(filled.meta["val"]):
        return True
    return not (name in _SHAPED or (name == "aten::slice" and takes_all(node)))


def _ruled(node: fx.Node, batched: Mapping[fx.Node, Any], batch: Batch) -> Any:
    first, name = next(iter(batched.values())), schema_name(node)
    if node.target is operator.getitem:
        return _kept(node, first, batch)
    if name in REGROUPS:
        place = _regrouped(node, first, batch) if len(batched) == 1 else Mixed(node)
        return place if isinstance(place, Mixed) else _kept(node, place, batch)
    between = {place.outer for place in batched.values() if isinstance(place, Interleaved)}
    if between and (name not in _ENTRYWISE or len(between) > 1):
        return Mixed(node)
    if between and not all(isinstance(place, Interleaved) for place in batched.values()):
        return Mixed(node)
    axes = {part: place.axis if between else place for part, place in batched.items()}
    rule = _rule_of(node)
    axis = None if rule is None else rule(node, bound(node), Rows(axes, batch))
    if axis is None:
        return Mixed(node)
    return _kept(node, Interleaved(axis, *between) if between else axis, batch)


def _rule_of(node: fx.Node) -> Rule | None:
    name = schema_name(node)
    if name in _RULES:
        return _RULES[name]
    tags = getattr(node.target, "tags", ())
    random = torch.Tag.nondeterministic_seeded in tags
    return pointwise if torch.Tag.pointwise in tags and not random else None


def _regrouped(node: fx.Node, place: int | Interleaved, batch: Batch) -> Any:
    """Place the rows after a reshape: as many entries come before each of them as before."""
    axis, outer = (place.axis, place.outer) if isinstance(place, Interleaved) else (place, 1)
    old, new = (
        [batch.expression(size) for size in fake_tensor(one).shape] for one in (node.args[0], node)
    )
    before = sympy.Mul(*old[:axis], outer)
    for number, size in enumerate(new):
        if batch.size in size.free_symbols:
            outer = sympy.cancel(before / sympy.Mul(*new[:number]))
            return Interleaved(number, outer) if outer != 1 else number
    return Mixed(node)


def _kept(node: fx.Node, place: int | Interleaved, batch: Batch) -> Any:
    """Check that the rows are in that axis of the result, and in no other."""
    axis, outer = (place.axis, place.outer) if isinstance(place, Interleaved) else (place, 1)
    for one in pytree.tree_leaves(node.meta["val"]):
        if not isinstance(one, torch.Tensor):
            continue
        shape = list(one.shape)
        if not 0 <= axis < len(shape):
            return Mixed(node)
        per_row = batch.per_row(shape.pop(axis))
        if per_row is None or batch.among(shape):
            return Mixed(node)
        parts = (sympy.sympify(outer), sympy.cancel(per_row / outer))
        if any(sympy.fraction(part)[1] != 1 for part in parts):  # not whole for all sizes
            return Mixed(node)
    return place


def _made(node: fx.Node, value: Any, batch: Batch) -> Any:
    """Place a value made from no sample: it may be repeated for every row."""
    name = schema_name(node)
    if not isinstance(value, torch.Tensor):
        parts = [one for one in pytree.tree_leaves(value) if isinstance(one, torch.Tensor)]
        return Mixed(node) if any(batch.among(one.shape) for one in parts) else None
    axes = [axis for axis, one in enumerate(value.shape) if batch.among([one])]
    if not axes:
        return None
    if name == "aten::arange":
        whole = batch.expression(value.shape[0]) == batch.size and _from_zero(node)
        return _Counter(0) if whole else Mixed(node)
    if len(axes) == 1 and (name in _FILLS or (name in _REPEATS and _is_repeated(node, axes[0]))):
        return _kept(node, axes[0], batch)
    return Mixed(node)


def _is_repeated(node: fx.Node, axis: int) -> bool:
    """Whether a value is the same at all entries of an axis, because it had at most one."""
    old, back = fake_tensor(node.args[0]).shape, rank_of(node) - axis
    return back > len(old) or is_one(old[-back])


def _from_zero(node: fx.Node) -> bool:
    arguments = bound(node)
    return arguments.get("start", 0) in (0, None) and arguments.get("step", 1) in (1, None)


def _counted(node: fx.Node, batched: Mapping[fx.Node, Any], batch: Batch) -> Any:
    """Follow the numbers of the rows: they may only select, from each row, entries of that row."""
    name = schema_name(node)
    if name in _KEEP_ENTRIES:
        (counter,) = batched.values()
        place = _ruled(node, dict.fromkeys(batched, counter.axis), batch)
        return _Counter(place) if isinstance(place, int) else Mixed(node)
    if name != "aten::index":
        return Mixed(node)
    value, places = node.args[0], list(node.args[1])  # type: ignore[arg-type]
    given = [one for one in places if one is not None]
    rows = isinstance(value, fx.Node) and batched.get(value) == 0
    if not rows or places[: len(given)] != given or _numbers_differ(value, given, batched, batch):
        return Mixed(node)
    axes = {
        one: place.axis if isinstance(place, _Counter) else place
        for one, place in batched.items()
        if one is not value
    }
    if any(isinstance(place, Interleaved) for place in axes.values()):
        return Mixed(node)
    axis = aligned(given, Rows(axes, batch), max(map(rank_of, given)))
    return Mixed(node) if axis is None else _kept(node, axis, batch)


def _numbers_differ(
    value: Any, given: list[Any], batched: Mapping[fx.Node, Any], batch: Batch
) -> bool:
    """Whether the first index may be another number than that of the row of its result."""
    one_each = batch.per_row(fake_tensor(value).shape[0]) == 1
    masks = any(fake_tensor(one).dtype == torch.bool for one in given)
    return masks or not one_each or not isinstance(batched.get(given[0]), _Counter)
