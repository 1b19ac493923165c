"""The pattern of attention: softmax of a product of queries and keys, times the values."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import torch
from torch import fx

from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import CASTS, VIEWS, schema_name
from graphprog.ir.weights import Weights
from graphprog.passes.attention.folded_heads import Folding, folding_of
from graphprog.passes.attention.score_chain import PRODUCTS, Step, StoppedError, Walk, check_kept

SOFTMAX = {"aten::softmax", "aten::_softmax", "aten::special_softmax"}
_ABSORBS = 32.0
"""The spacing of floats at a fill value from which an added score is rounded away."""
_HIDES = -1e4
"""A score whose weight is zero next to any other score."""


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A match of attention.

    Attributes:
        softmax: softmax over the keys.
        product: product of queries and keys.
        query: queries [B, H, T, d] or folded, as the product reads them.
        transposed: keys, with their last two dimensions swapped.
        steps: operations on the scores, in order.
        result: product of weights and values.
        value: values.
        folding: how heads are folded into the batch; None if they are not.
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
        """The dtype in which attention is computed; mask values must not overflow."""
        return _dtype_of(self.steps, self.product)


def softmaxes(code: fx.Graph) -> list[fx.Node]:
    """Return every softmax of a graph, in order."""
    return [node for node in code.nodes if schema_name(node) in SOFTMAX]


def pattern_at(softmax: fx.Node, weights: Weights) -> Pattern:
    """Match the attention around a softmax.

    Raises:
        StoppedError: names the operation that does not match, and why.
    """
    scores, dim = softmax.args[:2]
    assert isinstance(scores, fx.Node)
    assert isinstance(dim, int)
    if dim not in (-1, fake_tensor(softmax).ndim - 1):
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
    if fake_tensor(product).ndim == 3:
        views = [step.node for step in steps if step.kind == "shape"]
        folding = folding_of(query, [*views, softmax, *between], result)
        if folding is None:
            raise StoppedError(
                product, "the number of heads folded into the batch cannot be determined", found
            )
    hiding = _hiding(steps, _dtype_of(steps, product), found)
    return Pattern(softmax, product, query, transposed, hiding, result, value, folding)


def _weighted(softmax: fx.Node, found: list[fx.Node]) -> tuple[fx.Node, fx.Node, list[fx.Node]]:
    """Return the product of weights and values, the values, and the nodes up to the product."""
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
    ndims = (fake_tensor(value).ndim, fake_tensor(reader).ndim, fake_tensor(found[-1]).ndim)
    if len(set(ndims)) != 1:
        raise StoppedError(reader, "values have other dimensions than queries and keys", found)
    return reader, value, between


def _dtype_of(steps: Sequence[Step], product: fx.Node) -> torch.dtype:
    """Return the widest dtype in which scores are masked; without a mask, that of the product."""
    masks = [step.node for step in steps if step.kind in ("add", "fill", "keep")]
    dtypes = [fake_tensor(node).dtype for node in masks or [product]]
    widest: torch.dtype = functools.reduce(torch.promote_types, dtypes)
    return widest


def _hiding(
    steps: Sequence[Step], dtype: torch.dtype, found: Sequence[fx.Node]
) -> tuple[Step, ...]:
    """Return the steps, with fill values that hide any score that they are added to.

    A fill replaces the score, but an added mask does not, which makes a difference if all keys of a
    query are filled, unless the score is rounded away. If fills of one number are the only masks,
    any number that hides a score gives the same weights, so the smallest is used.
    """
    fills = [step for step in steps if step.kind in ("fill", "keep")]
    limits = torch.finfo(dtype)
    weak = next((step for step in fills if -step.number * limits.eps < _ABSORBS), None)
    if weak is None:
        return tuple(steps)
    following = list(steps[steps.index(fills[0]) :])
    alone = all(step.kind != "add" for step in steps)
    alone &= all(step.number == weak.number for step in fills)
    alone &= all(step.kind != "scale" for step in following)
    if not alone or weak.number > _HIDES:
        raise StoppedError(
            weak.node, f"scores are replaced by {weak.number:g}, which hides too little", found
        )
    return tuple(
        dataclasses.replace(step, number=limits.min) if step in fills else step for step in steps
    )
