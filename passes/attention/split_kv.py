"""Separate attention over a prefix and over tokens, for runtimes that copy in concatenation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from graphprog.analysis.attention import Attention, attentions
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.sizes import SLICE_END
from graphprog.passes.base import Pass
from graphprog.rewriting.editor import Editor
from graphprog.spec.registry import spec


@spec("split-kv")
@dataclasses.dataclass(frozen=True)
class SplitKV(Pass):
    """Split attention into operations that read keys and values of a prefix without a copy.

    softmax([q m^T, q k^T] + mask) [v_m; v] is computed without [m; k] and [v_m; v]: the prefix,
    the same for all rows, is then a constant that is neither repeated for each row nor copied.
    Everything is computed transposed, so that the prefix is the left factor of every product: a
    runtime reads a left factor in place, but would pack a right one for a few queries.
    Equal up to the order of a sum.

    Example:
        >>> longer = gp.passes.ExtendKV(gp.Prefix(length=4))(language)
        >>> split = gp.passes.SplitKV()(longer)
        >>> assert torch.allclose(split(ids), longer(ids), atol=1e-5)
    """

    def run(self, graph: Graph) -> Graph:
        """Rewrite every attention that reads a prefix; others stay."""
        edit = Editor(graph, str(self))
        biases: dict[fx.Node, fx.Node] = {}
        for attention in attentions(edit.code):
            parts = [_parts(attention.argument(slot)) for slot in (1, 2)]
            if attention.argument(4, 0.0) == 0.0 and not attention.causal:
                keys, values = parts
                if keys is not None and values is not None:
                    _write_out(edit, attention, keys, values, biases)
        return edit.finish()


def _parts(joined: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """Return a prefix [H, P, d] and the keys or values [B, H, S, d] after it; None without one."""
    if "graphprog" not in joined.meta or joined.target is not torch.ops.aten.cat.default:
        return None
    operands: Any = joined.args[0]
    wide, own = operands
    repeated = wide.target is torch.ops.aten.expand.default
    return (wide.args[0], own) if repeated else None


def _write_out(
    edit: Editor,
    attention: Attention,
    keys: tuple[fx.Node, fx.Node],
    values: tuple[fx.Node, fx.Node],
    biases: dict[fx.Node, fx.Node],
) -> None:
    ops, node = torch.ops.aten, attention.node
    part = str(values[0].meta["graphprog"]).removeprefix("program.")

    def call(target: torch._ops.OpOverload, *args: object) -> fx.Node:
        return edit.call(target, args, node, part)

    def transposed(one: fx.Node) -> fx.Node:
        return call(ops.transpose.int, one, -2, -1)

    width = fake_tensor(attention.query).shape[-1]
    scale = attention.argument(6)
    query = call(ops.mul.Tensor, attention.query, 1 / math.sqrt(width) if scale is None else scale)
    query = transposed(query)
    scores = call(ops.cat.default, [call(ops.matmul.default, one, query) for one in keys], -2)
    if (mask := attention.mask) is not None:
        if mask not in biases:
            biases[mask] = transposed(_bias(mask, query, call))
        scores = call(ops.add.Tensor, scores, biases[mask])
    shares = call(ops.softmax.int, scores, -2)
    length = fake_tensor(values[0]).shape[-2]
    bounds = ((0, length), (length, SLICE_END))
    mixed = [
        call(ops.matmul.default, transposed(value), call(ops.slice.Tensor, shares, -2, *bound))
        for value, bound in zip(values, bounds, strict=True)
    ]
    total = call(ops.add.Tensor, *mixed)
    node.target, node.args, node.kwargs = ops.transpose.int, (total, -2, -1), {}


def _bias(mask: fx.Node, query: fx.Node, call: Callable[..., fx.Node]) -> fx.Node:
    """Return the additive form of a mask, shared by all attention operations that read it."""
    if fake_tensor(mask).dtype != torch.bool:
        return mask
    ops, dtype = torch.ops.aten, fake_tensor(query).dtype
    return call(ops.to.dtype, call(ops.where.Scalar, mask, 0.0, float("-inf")), dtype)
