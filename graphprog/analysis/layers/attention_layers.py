"""The affine layers of attention: those of queries, keys, values, and of its result."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Collection

from torch import fx

from graphprog.analysis.attention import Attention, without_prefix
from graphprog.analysis.layers.affine import AffineLayer, layer_after, layers_behind
from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import RESHAPES, ancestors, bound, schema_name, values_of

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj")


@dataclasses.dataclass(frozen=True)
class Projection:
    """An affine layer, or the part of it whose result is used for one purpose.

    Attributes:
        layer: the layer.
        output: the value [..., m], or the part of it.
        rows: the rows of the weight that compute the part: first, and the one after the last.
    """

    layer: AffineLayer
    output: fx.Node
    rows: tuple[int, int] | None = None


def attention_layers(
    attention: Attention, active: Collection[fx.Node]
) -> tuple[dict[str, Projection], dict[str, str]]:
    """Find the layers of an attention operation.

    Args:
        attention: the operation.
        active: the activations of the graph.

    Returns:
        The layers by name, one of :data:`PROJECTIONS`, and for each of the others the reason why
        there is none. ``qkv_proj`` is the layer that computes several of the others.
    """
    found: dict[str, Projection] = {}
    missing: dict[str, str] = {}
    behind: dict[str, AffineLayer] = {}
    operands = {"q_proj": attention.query, "k_proj": attention.key, "v_proj": attention.value}
    for name, value in operands.items():
        layers, _, mixing = layers_behind(without_prefix(value), active)
        if mixing is not None:
            missing[name] = f"{mixing.name} ({schema_name(mixing)}) computes them"
        elif len(layers) != 1:
            names = ", ".join(layer.node.name for layer in layers)
            missing[name] = f"several layers compute them: {names}" if names else "none does"
        else:
            behind[name] = layers[0]
    for name, layer in behind.items():
        shared = [other for other, one in behind.items() if one.node is layer.node]
        if len(shared) == 1:
            found[name] = Projection(layer, layer.output)
            continue
        found["qkv_proj"] = Projection(layer, layer.output)
        part = _part(layer, operands[name], _width(attention, name))
        if part is None:
            missing[name] = (
                "one layer computes queries, keys and values, and their channels are separated "
                "after they are split into heads, so act on qkv_proj"
            )
        else:
            found[name] = part
    missing |= {"qkv_proj": "each has its own layer"} if "qkv_proj" not in found else {}
    after = layer_after(attention.node, active)
    if after is None:
        missing["o_proj"] = "no affine layer reads the result alone"
    else:
        found["o_proj"] = Projection(after, after.output)
    return found, missing


def _width(attention: Attention, name: str) -> int | None:
    """Return the number of channels of queries, keys or values, over all heads."""
    values = {"q_proj": attention.query, "k_proj": attention.key, "v_proj": attention.value}
    shape = fake_tensor(without_prefix(values[name])).shape
    if len(shape) != 4 or not all(isinstance(size, int) for size in (shape[1], shape[3])):
        return None
    heads = int(shape[1])
    return (heads if name == "q_proj" else heads // attention.repeats) * int(shape[3])


def _part(layer: AffineLayer, value: fx.Node, width: int | None) -> Projection | None:
    """Return the part of a layer's result that becomes a value, if it is a range of channels."""
    leading = {*ancestors(value, values_of)}
    node, whole = layer.output, layer.output
    while True:
        users = [user for user in node.users if user in leading]
        if len(users) != 1:
            return None
        before, node = node, users[0]
        if node is value or schema_name(node) == "aten::scaled_dot_product_attention":
            return None
        rows = _rows(node, before, whole)
        if rows is None:
            continue
        alike = fake_tensor(node).ndim == fake_tensor(layer.output).ndim
        return Projection(layer, node, rows) if alike and rows[1] - rows[0] == width else None


def _rows(node: fx.Node, before: fx.Node, whole: fx.Node) -> tuple[int, int] | None:
    """Return the channels of a layer's result that an operation takes."""
    total = fake_tensor(whole).shape[-1]
    if node.target is operator.getitem:
        return _of_split(before, int(node.args[1]), whole)  # type: ignore[arg-type]
    given = bound(node)
    if schema_name(node) == "aten::slice" and before is whole:
        first, last = given["start"] or 0, total if given["end"] is None else given["end"]
        fixed = isinstance(first, int) and isinstance(last, int) and given["step"] == 1
        if fixed and given["dim"] % fake_tensor(before).ndim == fake_tensor(before).ndim - 1:
            first, last, _ = slice(first, last).indices(int(total))
            return first, last
    if schema_name(node) == "aten::select" and before is not whole:
        return _of_select(node, before, whole)
    return None


def _of_split(split: fx.Node, index: int, whole: fx.Node) -> tuple[int, int] | None:
    names = ("aten::split", "aten::split_with_sizes", "aten::chunk", "aten::tensor_split")
    axes = fake_tensor(whole).ndim
    if schema_name(split) not in names or split.args[0] is not whole:
        return None
    if bound(split)["dim"] % axes != axes - 1:
        return None
    sizes = [int(part.shape[-1]) for part in split.meta["val"]]
    first = sum(sizes[:index])
    return first, first + sizes[index]


def _of_select(node: fx.Node, before: fx.Node, whole: fx.Node) -> tuple[int, int] | None:
    """Return the channels of one of three parts, after channels are split into [3, d]."""
    given, width = bound(node), fake_tensor(node).shape[-1]
    count = fake_tensor(before).shape[given["dim"]]
    split = before
    while split.op == "call_function" and split.args[0] is not whole:
        (split, *_) = split.all_input_nodes
    parts = [str(size) for size in fake_tensor(split).shape[-2:]]
    if schema_name(split) not in RESHAPES or parts != [str(count), str(width)]:
        return None
    if str(count * width) != str(fake_tensor(whole).shape[-1]):
        return None
    first = given["index"] % int(count) * int(width)
    return first, first + int(width)
