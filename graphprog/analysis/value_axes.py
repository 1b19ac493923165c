"""Which axes of a value are the batch, positions and units: channels, features or heads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx

from graphprog.analysis.attention import ATTENTION
from graphprog.analysis.constants import counts_entries
from graphprog.errors import InterfaceError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.inputs import batch_axis, inputs_of
from graphprog.ir.interface import Interface
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
_CHANNELS_FIRST = frozenset(
    f"aten::{name}"
    for name in ("conv1d", "conv2d", "conv3d", "convolution", "batch_norm", "group_norm")
)
_CHANNELS_LAST = frozenset({"aten::linear", "aten::layer_norm", "aten::rms_norm"})


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


def position_axis(graph: Graph, place: Interface) -> int | None:
    """Return the axis of the positions of a value: 1 of [B, S, d], 2 of [B, H, S, d] and [B, C, L].

    [B, C, L] is what a convolution or its norm reads or computes.

    Raises:
        InterfaceError: axis 0 of the value is not the batch.
    """
    batch = batch_axis(inputs_of(graph))
    if place.shape and batch is not None and place.shape[0] != batch:
        raise InterfaceError(
            f"axis 0 of {place.key!r} {place.type_text} is not the batch {batch}",
            ["read an interface whose values begin with the batch"],
        )
    if len(place.shape) == 4:
        return 2 if _is_attention(place) else None
    if len(place.shape) != 3:
        return None
    return 2 if _nearest(graph.nodes[place.node]) in _CHANNELS_FIRST else 1


def unit_axis(graph: Graph, place: Interface) -> int:
    """Return the axis of the units of a value: heads of attention, else channels or features.

    What is read or computed by a convolution has its channels on axis 1, by a linear layer or a
    layer norm on the last.

    Raises:
        InterfaceError: the axis cannot be determined.
    """
    rank = len(place.shape)
    if rank == 4 and _is_attention(place):
        return 1
    found = _nearest(graph.nodes[place.node])
    if found is None and rank in (2, 3):
        return rank - 1
    if found is None or rank < 2:
        raise InterfaceError(
            f"the value at {place.key!r} is {place.type_text}; the axis of its units cannot be "
            "determined: no convolution, linear layer or layer norm reads or computes it",
            ["name an interface next to such a layer", "leave out units="],
        )
    return 1 if found in _CHANNELS_FIRST else rank - 1


def _nearest(node: fx.Node) -> str | None:
    """Return the layer nearest to a value, over operations that change single entries."""
    shape, waiting, seen = fake_tensor(node).shape, [node], {node}
    for one in waiting:
        for near in (one, *(user for user in one.users if user.args[0] is one)):
            if (name := schema_name(near)) in _CHANNELS_FIRST | _CHANNELS_LAST:
                return name
        beside = [*(one.all_input_nodes if _is_pointwise(one) else ())]
        for near in [*beside, *filter(_is_pointwise, one.users)]:
            value = near.meta.get("val")
            same = isinstance(value, torch.Tensor) and str(value.shape) == str(shape)
            if same and near not in seen:
                seen.add(near)
                waiting.append(near)
    return None


def _is_pointwise(node: fx.Node) -> bool:
    return torch.Tag.pointwise in getattr(node.target, "tags", ())


def _is_attention(place: Interface) -> bool:
    return any("attention[" in alias for alias in place.aliases)
