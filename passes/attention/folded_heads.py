"""Attention heads folded into the batch: their number, from the surrounding reshapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import fx

from graphprog.ir.fake import fake_tensor, fake_value
from graphprog.ir.ops import CASTS, REGROUPS, schema_name
from graphprog.ir.sizes import expression, same_size
from graphprog.rewriting.edges import uses_of

_SAME = CASTS | {"aten::mul", "aten::div"}
_AFFINE = {"aten::linear", "aten::addmm", "aten::layer_norm"}


@dataclasses.dataclass(frozen=True)
class Folding:
    """Folding of [B, heads, T, d] into [B * heads, T, d]."""

    heads: int

    def unfolded_by(self, node: fx.Node) -> fx.Node | None:
        """Return the value [B, heads, T, d] that a folded one was computed from, if any."""
        source = node.args[0] if schema_name(node) in REGROUPS else None
        return source if isinstance(source, fx.Node) and _folds(source, node) else None


def folding_of(query: fx.Node, weights: Sequence[fx.Node], result: fx.Node) -> Folding | None:
    """Return the number of folded heads; None if the surrounding reshapes do not show it.

    Args:
        query: [N, T, d].
        weights: scores and weights on the way from queries to the result.
        result: [N, T, e].
    """
    origin = _origin(query)
    source = origin.args[0] if schema_name(origin) in REGROUPS else None
    whole = [node for node in weights if fake_tensor(node).ndim == 4]
    whole += [source] if isinstance(source, fx.Node) and _folds(source, origin) else []
    whole += [user for user, _ in uses_of(result) if _folds(user, result)]
    if whole:
        sizes = [fake_value(node).shape[1] for node in whole]
        same = isinstance(sizes[0], int) and all(same_size(size, sizes[0]) for size in sizes)
        return Folding(int(sizes[0])) if same else None
    if (heads := _split_from(query)) is not None:
        return Folding(heads)
    single = expression(fake_tensor(query).shape[0]).is_Symbol or schema_name(origin) in _AFFINE
    return Folding(1) if single else None


def _folds(whole: fx.Node, folded: fx.Node) -> bool:
    """Whether a value of four dimensions is a folded value with separate heads."""
    value, other = whole.meta.get("val"), fake_tensor(folded)
    if not isinstance(value, torch.Tensor) or value.ndim != 4 or other.ndim != 3:
        return False
    if schema_name(whole) not in REGROUPS and schema_name(folded) not in REGROUPS:
        return False
    same = all(map(same_size, value.shape[-2:], other.shape[-2:]))
    return same and same_size(value.shape[0] * value.shape[1], other.shape[0])


def _origin(node: fx.Node) -> fx.Node:
    """Follow a value back through changes of dtype and multiplication by a number."""
    while schema_name(node) in _SAME and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node


def _split_from(query: fx.Node) -> int | None:
    """Heads of queries [B * heads, T, d] that were a view of [T, B, heads * d], and transposed."""
    node = _origin(query)
    if schema_name(node) != "aten::transpose" or set(node.args[1:]) != {0, 1}:
        return None
    view = _origin(node.args[0])  # type: ignore[arg-type]
    source = view.args[0] if schema_name(view) in REGROUPS else None
    if not isinstance(source, fx.Node) or fake_tensor(source).ndim != 3:
        return None
    (length, batch, width), own = fake_value(source).shape, fake_value(view).shape
    if not isinstance(width, int) or not isinstance(own[2], int) or not same_size(length, own[0]):
        return None
    heads = width // own[2]
    return heads if same_size(batch * heads, own[1]) else None
