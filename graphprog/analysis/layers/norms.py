"""Norms in a graph: operations, or root mean squares written as single operations."""

from __future__ import annotations

import dataclasses

from torch import fx

from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import CASTS, bound, schema_name
from graphprog.rewriting.edges import Slot, uses_of

_NORMS = ("aten::layer_norm", "aten::rms_norm", "aten::group_norm", "aten::native_layer_norm")


@dataclasses.dataclass(frozen=True)
class Norm:
    """A norm with a weight of the source.

    Attributes:
        weight: the node that reads the weight [d].
        bias: the node that reads the bias [d]; None without one.
        input: what is normalized.
        reading: where it is read.
        output: the result.
        node: the operation that multiplies by the weight.
    """

    node: fx.Node
    weight: fx.Node
    bias: fx.Node | None
    input: fx.Node
    reading: tuple[Slot, ...]
    output: fx.Node


def norms(code: fx.Graph) -> list[Norm]:
    """Find the norms of a graph that have a weight, in order."""
    found = []
    for node in code.nodes:
        if schema_name(node) in _NORMS:
            found += _of_operation(node)
        elif schema_name(node) == "aten::mul":
            found += _of_product(node)
    return found


def _of_operation(node: fx.Node) -> list[Norm]:
    given = bound(node)
    weight, bias = given["weight"], given.get("bias")
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return []
    value = given["input"]
    reading = tuple(use for use in uses_of(value) if use[0] is node)
    output = node
    if schema_name(node) == "aten::native_layer_norm":
        output = next(iter(node.users))
    bias = bias if isinstance(bias, fx.Node) and bias.op == "get_attr" else None
    return [Norm(node, weight, bias, value, reading, output)]


def _of_product(node: fx.Node) -> list[Norm]:
    """Return the norm whose weight is multiplied: w · (x · rsqrt(mean(x²) + ε))."""
    weights = [part for part in node.all_input_nodes if part.op == "get_attr"]
    others = [part for part in node.all_input_nodes if part not in weights]
    if len(weights) != 1 or len(others) != 1 or fake_tensor(weights[0]).ndim != 1:
        return []
    scaled = _uncast(others[0])
    parts = [_uncast(part) for part in scaled.all_input_nodes]
    if schema_name(scaled) != "aten::mul" or len(parts) != 2:
        return []
    roots = [part for part in parts if schema_name(part) == "aten::rsqrt"]
    if len(roots) != 1:
        return []
    value = next(part for part in parts if part is not roots[0])
    return [Norm(node, weights[0], None, value, tuple(uses_of(value)), node)]


def _uncast(node: fx.Node) -> fx.Node:
    while schema_name(node) in CASTS:
        (node, *_) = node.all_input_nodes
    return node
