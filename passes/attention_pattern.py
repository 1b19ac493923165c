"""Attention written out by hand: softmax of a product of queries and keys, times the values."""

from __future__ import annotations

import dataclasses

import torch
from torch import fx

from graphprog.passes.attention_steps import (
    CASTS,
    PRODUCTS,
    VIEWS,
    Step,
    StoppedError,
    Walk,
    check_kept,
)
from graphprog.passes.folded_heads import Folding, folding_of
from graphprog.passes.normalise import schema_name
from graphprog.weights import Weights

SOFTMAX = {"aten::softmax", "aten::_softmax", "aten::special_softmax"}
_ABSORBS = 32.0
"""How large the spacing of numbers at a fill must be, for it to swallow a score added to it."""


@dataclasses.dataclass(frozen=True)
class Pattern:
    """One attention that was found.

    Attributes:
        softmax: over the keys.
        product: of queries and keys.
        query: [B, H, T, d] or folded, as the product reads them.
        transposed: the keys, with their last two dimensions swapped.
        steps: what happens to the scores, in order.
        result: the product of weights and values.
        value: the values.
        folding: how heads are folded into the batch; None where they are not.
    """

    softmax: fx.Node
    product: fx.Node
    query: fx.Node
    transposed: fx.Node
    steps: tuple[Step, ...]
    result: fx.Node
    value: fx.Node
    folding: Folding | None

    @property
    def dtype(self) -> torch.dtype:
        """The type in which scores are masked first; that of the product where they are not."""
        masks = [step.node for step in self.steps if step.kind in ("add", "fill", "keep")]
        dtype: torch.dtype = (masks or [self.product])[0].meta["val"].dtype
        return dtype


def softmaxes(code: fx.Graph) -> list[fx.Node]:
    """Every softmax of a graph, in order."""
    return [node for node in code.nodes if schema_name(node) in SOFTMAX]


def pattern_at(softmax: fx.Node, weights: Weights) -> Pattern:
    """The attention that a softmax belongs to.

    Raises:
        StoppedError: at which operation it is no attention that can be rewritten, and why.
    """
    scores, dim = softmax.args[:2]
    assert isinstance(scores, fx.Node)
    assert isinstance(dim, int)
    if dim not in (-1, softmax.meta["val"].ndim - 1):
        raise StoppedError(softmax, f"softmax over dimension {dim}, not the last", [])
    walk = Walk(weights)
    steps, product = walk.scores(scores, softmax, [softmax])
    found = [softmax, *(step.node for step in reversed(steps)), product]
    result, value, between = _weighted(softmax, found)
    slot = PRODUCTS[schema_name(product)]
    query, transposed = product.args[slot : slot + 2]
    assert isinstance(query, fx.Node)
    assert isinstance(transposed, fx.Node)
    folding = None
    if product.meta["val"].ndim == 3:
        views = [step.node for step in steps if step.kind == "shape"]
        folding = folding_of(query, [*views, softmax, *between], result)
        if folding is None:
            raise StoppedError(
                product, "how many heads are folded into the batch cannot be told", found
            )
    pattern = Pattern(softmax, product, query, transposed, tuple(steps), result, value, folding)
    _check_fills(pattern, found)
    return pattern


def _weighted(softmax: fx.Node, found: list[fx.Node]) -> tuple[fx.Node, fx.Node, list[fx.Node]]:
    """The product of weights and values, the values, and what is between softmax and it."""
    node, between = softmax, list[fx.Node]()
    while True:
        readers = list(node.users)
        if len(readers) != 1 or readers[0].op == "output":
            why = "the weights are returned, or used beside the values"
            raise StoppedError(node, why, [*found, *between])
        reader = readers[0]
        name = schema_name(reader)
        if name in ("aten::matmul", "aten::bmm") and reader.args[0] is node:
            break
        if name not in CASTS | VIEWS or reader.args[0] is not node:
            why = "the weights are not multiplied with values next"
            raise StoppedError(reader, why, [*found, *between])
        check_kept(node, reader, [*found, *between])
        node = reader
        between.append(node)
    value = reader.args[1]
    assert isinstance(value, fx.Node)
    ndims = (value.meta["val"].ndim, reader.meta["val"].ndim, found[-1].meta["val"].ndim)
    if len(set(ndims)) != 1:
        raise StoppedError(reader, "values have other dimensions than queries and keys", found)
    return reader, value, between


def _check_fills(pattern: Pattern, found: list[fx.Node]) -> None:
    """Refuse to add what replaces, unless nothing of the score would be left."""
    spacing = torch.finfo(pattern.dtype).eps
    for step in pattern.steps:
        if step.kind in ("fill", "keep") and -step.number * spacing < _ABSORBS:
            raise StoppedError(
                step.node, f"scores are replaced by {step.number:g}, which hides too little", found
            )
