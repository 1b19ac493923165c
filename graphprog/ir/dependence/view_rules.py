"""Rules of operations that move entries: views, selections, concatenations."""

from __future__ import annotations

import torch
from torch import fx

from graphprog.ir.dependence.rule_table import (
    Arguments,
    Rows,
    RuleTable,
    aligned,
    dims_of,
    is_one,
    only,
    rank_of,
)
from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import bound
from graphprog.ir.sizes import expression, is_symbolic

VIEW_RULES = RuleTable()


@VIEW_RULES.add(
    "to", "_to_copy", "clone", "contiguous", "detach", "alias", "lift_fresh_copy", "type_as", "fill"
)
def _same(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    return only(rows, node.args[0])


@VIEW_RULES.add("permute")
def _permuted(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    axis, rank = only(rows, node.args[0]), rank_of(node)
    return [dim % rank for dim in arguments["dims"]].index(axis) if axis is not None else None


@VIEW_RULES.add("transpose", "swapaxes", "t")
def _transposed(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    axis, rank = only(rows, node.args[0]), rank_of(node)
    given = [item for item in node.args[1:] if isinstance(item, int)] or [0, 1]
    if axis is None or rank < 2 or len(given) != 2:
        return None
    one, other = (dim % rank for dim in given)
    return {one: other, other: one}.get(axis, axis)


@VIEW_RULES.add("mT", "numpy_T", "adjoint")
def _turned(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    axis, rank = only(rows, node.args[0]), rank_of(node)
    if axis is None or (rank != 2 and "numpy_T" in str(node.target)):
        return None
    return {rank - 2: rank - 1, rank - 1: rank - 2}.get(axis, axis)


@VIEW_RULES.add("movedim", "moveaxis")
def _moved(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    axis, rank = only(rows, node.args[0]), rank_of(node)
    old, new = (
        [dim % rank for dim in ([given] if isinstance(given, int) else given)]
        for given in (arguments["source"], arguments["destination"])
    )
    order = [dim for dim in range(rank) if dim not in old]
    for place, dim in sorted(zip(new, old, strict=True)):
        order.insert(place, dim)
    return None if axis is None else order.index(axis)


@VIEW_RULES.add("unsqueeze")
def _unsqueezed(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    axis, new = only(rows, node.args[0]), arguments["dim"] % rank_of(node)
    return None if axis is None else axis + (new <= axis)


@VIEW_RULES.add("squeeze", "select", "unbind")
def _dropped(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    axis, rank = only(rows, node.args[0]), rank_of(node.args[0])
    dims = dims_of(arguments, rank)
    if axis is None or dims is None or axis in dims:
        return None
    shape = fake_tensor(node.args[0]).shape
    squeezes = node.target._schema.name == "aten::squeeze"  # type: ignore[union-attr]
    gone = {dim for dim in dims if not squeezes or is_one(shape[dim])}
    return axis - sum(dim < axis for dim in gone)


@VIEW_RULES.add("slice")
def _sliced(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    axis = only(rows, node.args[0])
    other = arguments["dim"] % rank_of(node.args[0]) != axis
    return axis if other or takes_all(node) else None


def takes_all(node: fx.Node) -> bool:
    """Whether a slice takes every entry of its axis."""
    arguments = bound(node)
    start, end = arguments["start"], arguments["end"]
    size = fake_tensor(node.args[0]).shape[arguments["dim"]]
    end = end.meta["val"] if isinstance(end, fx.Node) else end
    unbounded = end is None or (isinstance(end, int) and end >= 2**62)
    same = is_symbolic(end) and expression(end) == expression(size)
    return start in (None, 0) and (unbounded or same) and arguments["step"] in (None, 1)


@VIEW_RULES.add("slice_scatter", "select_scatter")
def _scattered(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    """A part of each row is replaced, by the same for all or by that of the row."""
    whole, part, rank = arguments["self"], arguments["src"], rank_of(node)
    axis, dim = rows.get(whole), arguments["dim"] % rank
    selects = node.target._schema.name == "aten::select_scatter"  # type: ignore[union-attr]
    if axis == dim and not selects and takes_all(node):
        return axis if rows.get(part) == axis else None
    if axis is None or axis == dim:
        return None
    place = axis - (selects and dim < axis)
    return axis if part not in rows or rows[part] == place else None


@VIEW_RULES.add("narrow", "split", "split_with_sizes", "chunk", "tensor_split", "unfold")
def _narrowed(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    axis, rank = only(rows, node.args[0]), rank_of(node.args[0])
    own = arguments.get("dim", arguments.get("dimension"))
    return axis if isinstance(own, int) and own % rank != axis else None


@VIEW_RULES.add("index_select")
def _selected(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    axis = only(rows, node.args[0])
    return axis if axis != arguments["dim"] % rank_of(node.args[0]) else None


@VIEW_RULES.add("gather", "take_along_dim")
def _gathered(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    operands = [arguments["self"], arguments.get("index", arguments.get("indices"))]
    axis = aligned(operands, rows, rank_of(node))
    dims = dims_of(arguments, rank_of(node))
    both = all(one in rows for one in operands)
    return axis if both and dims is not None and axis not in dims else None


@VIEW_RULES.add("cat", "stack")
def _joined(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    operands = list(arguments["tensors"])
    places = {rows.get(one) for one in operands}
    axis: int | None
    (axis,) = places if len(places) == 1 else (None,)
    dim: int = arguments["dim"] % rank_of(node)
    if axis is None or node.target._schema.name == "aten::cat":  # type: ignore[union-attr]
        return axis if axis != dim else None
    return axis + (dim <= axis)


@VIEW_RULES.add("expand", "expand_as")
def _expanded(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    axis = only(rows, node.args[0])
    return None if axis is None else axis - rank_of(node.args[0]) + rank_of(node)


@VIEW_RULES.add("repeat_interleave")
def _interleaved(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    fixed = isinstance(arguments.get("repeats"), int) and arguments["dim"] is not None
    return only(rows, node.args[0]) if fixed else None


@VIEW_RULES.add("repeat")
def _repeated(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    axis = only(rows, node.args[0])
    if axis is None:
        return None
    place = axis - rank_of(node.args[0]) + rank_of(node)
    return place if arguments["repeats"][place] == 1 else None


@VIEW_RULES.add("pad", "constant_pad_nd")
def _padded(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    axis, padded = only(rows, node.args[0]), len(arguments["pad"]) // 2
    return axis if axis is not None and axis < rank_of(node) - padded else None


@VIEW_RULES.add("index")
def _indexed(node: fx.Node, arguments: Arguments, rows: Rows) -> int | None:
    """Rows keep their place before all indexed axes; or they index a table."""
    value, places = arguments["self"], list(arguments["indices"])
    indexed = [axis for axis, one in enumerate(places) if one is not None]
    given = [places[axis] for axis in indexed]
    first = indexed[0]
    if indexed != list(range(first, first + len(indexed))):
        return None
    if set(rows) == {value}:
        return rows[value] if rows[value] < first else None
    if value in rows or any(fake_tensor(one).dtype == torch.bool for one in given):
        return None
    axis = aligned(given, rows, max(map(rank_of, given)))
    return None if axis is None else first + axis
