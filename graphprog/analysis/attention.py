"""Attention operations in a graph: queries, keys, values, masks and heads."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import torch
from torch import fx

from graphprog.analysis.blocks.residual_stream import ResidualStream
from graphprog.analysis.token_inputs import TokenLookup
from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import RESHAPES, ancestors, schema_name, values_of

ATTENTION = torch.ops.aten.scaled_dot_product_attention.default

_REPEATS = {"aten::expand", "aten::repeat_interleave"}
_SAME_VALUES = RESHAPES | {"aten::clone", "aten::contiguous", "aten::slice", "aten::unsqueeze"}


@dataclasses.dataclass(frozen=True)
class Attention:
    """One attention operation: softmax(q k^T * scale + mask) v.

    Attributes:
        node: the operation; queries [B, H, T, d], keys [B, h, S, d], values [B, h, S, e].
    """

    node: fx.Node

    def argument(self, position: int, default: Any = None) -> Any:
        """An argument by its position in the schema."""
        name = ATTENTION._schema.arguments[position].name
        args = self.node.args
        return args[position] if position < len(args) else self.node.kwargs.get(name, default)

    @property
    def query(self) -> fx.Node:
        """The queries."""
        node: fx.Node = self.argument(0)
        return node

    @property
    def key(self) -> fx.Node:
        """The keys, as the operation reads them."""
        node: fx.Node = self.argument(1)
        return node

    @property
    def value(self) -> fx.Node:
        """The values, as the operation reads them."""
        node: fx.Node = self.argument(2)
        return node

    @property
    def mask(self) -> fx.Node | None:
        """The mask, boolean or additive."""
        node: fx.Node | None = self.argument(3)
        return node

    @property
    def causal(self) -> bool:
        """Whether the operation itself applies a causal mask."""
        return bool(self.argument(5, False))

    @property
    def repeats(self) -> int:
        """How often each key head is repeated before the operation, for grouped queries."""
        return repeats_of(without_prefix(self.key))


def attentions(code: fx.Graph) -> list[Attention]:
    """The attention operations of a graph, in order."""
    return [Attention(node) for node in code.nodes if node.target is ATTENTION]


def without_prefix(heads: fx.Node) -> fx.Node:
    """Return the keys or values of the sequence, without those of a prefix."""
    while "graphprog" in heads.meta and heads.target is torch.ops.aten.cat.default:
        heads = heads.args[0][-1]  # type: ignore[index, assignment]
    return heads


def repeats_of(heads: fx.Node) -> int:
    """Return how often each head of [B, H, S, d] is repeated, from the repeating operations."""
    shape, node = fake_tensor(heads).shape, heads
    repeated = 1
    while (name := schema_name(node)) in _SAME_VALUES | _REPEATS:
        before = node.args[0]
        assert isinstance(before, fx.Node)
        value, source = fake_tensor(node), fake_tensor(before)
        if name == "aten::expand" and value.ndim == source.ndim == 5 and value.shape[2] != 1:
            repeated = int(value.shape[2]) if source.shape[2] == 1 else repeated
        if name == "aten::repeat_interleave" and value.ndim == 4:
            repeated = int(value.shape[1]) // int(source.shape[1])
        node = before
        if repeated > 1 and fake_tensor(node).ndim == 4:
            break
    fits = repeated > 1 and fake_tensor(node).ndim == 4
    return repeated if fits and fake_tensor(node).shape[1] * repeated == shape[1] else 1


def activations(code: fx.Graph, positions: Collection[str] = ()) -> frozenset[fx.Node]:
    """Return the activations: nodes computed from a float input, or from looked-up ids.

    Masks, positions and sizes are not activations: they can be computed for any length.

    Args:
        code: the operations of a graph.
        positions: names of inputs that hold positions.
    """
    found: set[fx.Node] = set()
    for node in code.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder":
            begins = isinstance(value, torch.Tensor) and value.is_floating_point()
        elif node.op != "call_function" or not isinstance(value, torch.Tensor | list | tuple):
            continue
        else:
            lookup = TokenLookup.of(node)
            begins = lookup is not None and lookup.ids.target not in positions
            begins |= any(part in found for part in values_of(node))
        if begins:
            found.add(node)
    return frozenset(found)


def is_cross(attention: Attention) -> bool:
    """Whether queries and keys come from different sequences.

    They do if they come from different inputs, or differ in length and are not one activation,
    pooled for the queries or for the keys: one of them is computed from where both begin
    without a residual addition.
    """
    query, key = attention.query, without_prefix(attention.key)
    if not input_ancestors(query) <= input_ancestors(key):
        return True
    if str(fake_tensor(query).shape[-2]) == str(fake_tensor(key).shape[-2]):
        return False
    stream = ResidualStream(query.graph)
    start = stream.meeting(query, key)
    return start is None or min(stream.residuals(start, end) for end in (query, key)) > 0


def input_ancestors(node: fx.Node) -> set[fx.Node]:
    """Return the inputs that a value depends on."""
    return {part for part in ancestors(node, values_of) if part.op == "placeholder"}
