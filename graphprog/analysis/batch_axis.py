"""Which axis of a value is the batch, along which nothing mixes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx

from graphprog.analysis.attention import ATTENTION
from graphprog.analysis.constants import counts_entries
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.ops import bound, schema_name
from graphprog.ir.sizes import Size, expression, is_symbolic, same_size

_ALONG = frozenset(
    f"aten::{name}"
    for name in (
        *("softmax", "_softmax", "log_softmax", "_log_softmax", "mean", "sum", "amax", "cumsum"),
        *("argmax", "index_select", "gather", "scatter_add", "scatter_reduce", "index_add"),
    )
)
"""Operations that mix entries along the dimensions that they name."""
_PRODUCTS = {"aten::matmul", "aten::bmm", "aten::mm"}


def is_batch(graph: Graph, value: torch.Tensor, axis: int) -> bool:
    """Whether an axis of a value in a graph is the batch.

    Its size is that of the axis which was named ``batch``, or of axis 0 of all inputs or of all
    attention, and no operation mixes entries along an axis of that size, as attention, pooling or
    the edges of a graph network do. Axis 0 is not taken for the batch because of a fixed size.
    """
    size = value.shape[axis]
    if not (is_symbolic(size) and str(graph.symbols.get(expression(size))) == "B"):
        attention = graph.code.find_nodes(op="call_function", target=ATTENTION)
        operands = [node.args[0] for node in attention]
        first = _all_start_with(size, graph.placeholders) or _all_start_with(size, operands)
        if axis == 0 or not first or same_size(value.shape[0], size):
            return False
    return not any(same_size(one, size) for node in graph.code.nodes for one in _mixed(node))


def _all_start_with(size: Size, nodes: Sequence[Any]) -> bool:
    shapes = [shape for node in nodes if (shape := fake_tensor(node).shape)]
    return bool(shapes) and all(same_size(shape[0], size) for shape in shapes)


def _mixed(node: fx.Node) -> Iterator[Size]:
    """Yield the sizes of the dimensions along which an operation mixes entries."""
    name = schema_name(node)
    operand = node.args[0] if node.args else None
    if not isinstance(operand, fx.Node) or not isinstance(operand.meta.get("val"), torch.Tensor):
        return
    shape = fake_tensor(operand).shape
    if node.target is ATTENTION:
        yield fake_tensor(node.args[1]).shape[-2]
    elif name in _PRODUCTS:
        yield shape[-1]
    elif name in ("aten::index", "aten::index_put"):
        for dim, place in enumerate(node.args[1]):  # type: ignore[arg-type]
            if isinstance(place, fx.Node) and not counts_entries(place):
                yield shape[dim]
    elif name in _ALONG:
        dims = (arguments := bound(node)).get("dim", arguments.get("dims"))
        for dim in [dims] if isinstance(dims, int) else dims or range(len(shape)):
            if shape:
                yield shape[dim]
