"""Attention over a memory and over tokens apart, for runtimes that copy what they concatenate."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import fx

from graphprog.attention import Attention, attentions
from graphprog.graph import Graph
from graphprog.passes.base import Pass
from graphprog.passes.editor import Editor
from graphprog.spec import spec


@spec("split-memory")
@dataclasses.dataclass(frozen=True)
class SplitMemory(Pass):
    """Write attention out, so that keys and values of a memory are read where they lie.

    softmax([q m^T, q k^T] + mask) [v_m; v] is computed without [m; k] and [v_m; v]: the memory, the
    same for all rows, is then a constant that is neither repeated for each row nor copied. Equal up
    to the order of a sum.
    """

    def run(self, graph: Graph) -> Graph:
        """Rewrite every attention that reads a memory; others stay."""
        edit = Editor(graph, str(self))
        for attention in attentions(edit.code):
            parts = [_parts(attention.argument(slot)) for slot in (1, 2)]
            if attention.argument(4, 0.0) == 0.0 and not attention.causal:
                keys, values = parts
                if keys is not None and values is not None:
                    _write_out(edit, attention, keys, values)
        return edit.finish()


def _parts(joined: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """A memory [H, P, d] and the keys or values [B, H, S, d] behind it; None without one."""
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
) -> None:
    ops, node = torch.ops.aten, attention.node
    part = str(values[0].meta["graphprog"]).removeprefix("program.")

    def call(target: torch._ops.OpOverload, *args: object) -> fx.Node:
        return edit.call(target, args, node, part)

    width = attention.query.meta["val"].shape[-1]
    scale = attention.argument(6)
    query = call(ops.mul.Tensor, attention.query, 1 / math.sqrt(width) if scale is None else scale)
    scores = [call(ops.matmul.default, query, call(ops.transpose.int, one, -2, -1)) for one in keys]
    total = call(ops.cat.default, scores, -1)
    mask = attention.mask
    if mask is not None and mask.meta["val"].dtype == torch.bool:
        hidden = call(ops.logical_not.default, mask)
        total = call(ops.masked_fill.Scalar, total, hidden, float("-inf"))
    elif mask is not None:
        total = call(ops.add.Tensor, total, mask)
    shares = call(ops.softmax.int, total, -1)
    length = values[0].meta["val"].shape[-2]
    pieces = [
        call(ops.slice.Tensor, shares, -1, 0, length),
        call(ops.slice.Tensor, shares, -1, length, 2**63 - 1),
    ]
    mixed = [
        call(ops.matmul.default, piece, value) for piece, value in zip(pieces, values, strict=True)
    ]
    node.target, node.args, node.kwargs = ops.add.Tensor, (mixed[0], mixed[1]), {}
