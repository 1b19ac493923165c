"""Layers over flattened positions, as GPT-2 has them, written as layers over positions."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import fx

from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import RESHAPES, schema_name
from graphprog.ir.sizes import same_size
from graphprog.passes.selection.writer import Writer
from graphprog.rewriting.toposort import sort

_aten = torch.ops.aten


def unflatten_layers(code: fx.Graph, whole: Collection[fx.Node], meta: dict[str, Any]) -> None:
    """Write layers over flattened positions as layers over positions; they compute the same."""
    writer = Writer(code, meta)
    for node in list(code.nodes):
        if (
            schema_name(node) in RESHAPES
            and (found := _flattened_layer(node))
            and node not in whole
        ):
            value, weight, bias = found
            turned = writer.once(_aten.t.default, weight)
            node.target, node.args, node.kwargs = _aten.linear.default, (value, turned, bias), {}
    sort(code)
    for node in reversed(list(code.nodes)):
        if not node.users and node.op == "call_function" and node not in whole:
            code.erase_node(node)


def _flattened_layer(node: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node | None] | None:
    """Return value, weight [in, out] and bias of an affine layer on rows, viewed as before."""
    layer = node.args[0]
    if not isinstance(layer, fx.Node) or len(layer.users) != 1 or layer.kwargs:
        return None
    if layer.target is _aten.addmm.default:
        bias, rows, weight = layer.args
    elif layer.target is _aten.mm.default:
        (rows, weight), bias = layer.args, None
    else:
        return None
    if not isinstance(rows, fx.Node) or schema_name(rows) not in RESHAPES:
        return None
    value = rows.args[0]
    assert isinstance(value, fx.Node)
    assert isinstance(weight, fx.Node)
    assert bias is None or isinstance(bias, fx.Node)
    old, new = fake_tensor(value).shape, fake_tensor(node).shape
    plain = bias is None or fake_tensor(bias).ndim == 1
    inside = same_size(old[-1], fake_tensor(weight).shape[0])
    outside = same_size(new[-1], fake_tensor(weight).shape[1])
    alike = len(old) == len(new) > 2 and all(map(same_size, old[:-1], new[:-1]))
    return (value, weight, bias) if plain and inside and outside and alike else None
