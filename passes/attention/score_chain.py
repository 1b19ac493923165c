"""The chain of operations from softmax back to the product of queries and keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import fx

from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import CASTS, VIEWS, number_of, schema_name
from graphprog.ir.sizes import Size, same_for_examples, same_size
from graphprog.ir.weights import Weights
from graphprog.rewriting.refusal import RefusalError

PRODUCTS = {"aten::matmul": 0, "aten::bmm": 0, "aten::baddbmm": 1}
"""Products, and the position of their first factor."""


class StoppedError(RefusalError):
    """Matching stops at an operation.

    Attributes:
        found: the operations matched before, beginning with softmax.
    """

    def __init__(self, node: fx.Node, why: str, found: Sequence[fx.Node]) -> None:
        self.found = tuple(found)
        super().__init__(node, why)


@dataclasses.dataclass(frozen=True)
class Step:
    """An operation between the product and softmax.

    Attributes:
        kind: its effect on the scores; ``fill`` where the mask is true, ``keep`` where it is true.
        node: the operation.
        operand: the added tensor, or the mask; None for a number alone.
        number: the factor or fill value of the scores, or the sign of the added tensor.
    """

    kind: Literal["scale", "add", "fill", "keep", "shape"]
    node: fx.Node
    operand: fx.Node | None
    number: float


class Walk:
    """From softmax back to the product of queries and keys."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def scores(
        self, node: fx.Node, reader: fx.Node, found: list[fx.Node]
    ) -> tuple[list[Step], fx.Node]:
        """Return the steps in order of computation, and the product before them."""
        if len(node.users) > 1:
            raise StoppedError(node, "its result is read by other operations as well", found)
        check_kept(node, reader, found)
        name = schema_name(node)
        if name in PRODUCTS:
            return self._product(node, found), node
        if node.op == "call_function" and name.partition("::")[2] in _STEPS:
            failures: list[StoppedError] = []
            for slot, step in _STEPS[name.partition("::")[2]](self, node):
                source = node.args[slot]
                try:
                    assert isinstance(source, fx.Node)
                    steps, product = self.scores(source, node, [*found, node])
                except StoppedError as error:
                    failures.append(error)
                else:
                    return ([*steps, step] if step else steps), product
            if failures:
                raise max(failures, key=lambda error: len(error.found))
        raise StoppedError(node, "the scores are computed in a way that has no counterpart", found)

    def _product(self, node: fx.Node, found: list[fx.Node]) -> list[Step]:
        """Return the steps inside the product itself: a bias and factors."""
        slot = PRODUCTS[schema_name(node)]
        ndims = {fake_tensor(part).ndim for part in node.all_input_nodes[-2:]}
        if fake_tensor(node).ndim not in (3, 4) or ndims != {fake_tensor(node).ndim}:
            raise StoppedError(node, "a product neither of [B, H, T, d] nor of [B, T, d]", found)
        if slot == 0:
            return []
        alpha, beta = (
            number_of(node.kwargs.get(key, 1), self.weights) for key in ("alpha", "beta")
        )
        if alpha is None or beta is None:
            raise StoppedError(node, "its factors are not constant", found)
        bias = node.args[0]
        assert isinstance(bias, fx.Node)
        steps = [Step("scale", node, None, alpha)]
        return steps + ([Step("add", node, bias, beta)] if beta != 0 else [])

    def same(self, node: fx.Node) -> list[tuple[int, Step | None]]:
        """Match an operation that keeps the values."""
        value, source = fake_tensor(node), fake_tensor(node.args[0])
        if not value.is_floating_point():
            return []
        return [(0, Step("shape", node, None, 1.0) if value.ndim != source.ndim else None)]

    def scaled(self, node: fx.Node) -> list[tuple[int, Step | None]]:
        """Match multiplication or division by a number."""
        found: list[tuple[int, Step | None]] = []
        divides = schema_name(node) == "aten::div"
        for slot in (0,) if divides else (0, 1):
            number = number_of(node.args[1 - slot], self.weights)
            if number and isinstance(node.args[slot], fx.Node) and not node.kwargs:
                factor = 1 / number if divides else number
                found.append((slot, Step("scale", node, None, factor)))
        return found

    def added(self, node: fx.Node) -> list[tuple[int, Step | None]]:
        """Match addition or subtraction of a mask or bias."""
        sign = -1.0 if schema_name(node) == "aten::sub" else 1.0
        alpha = number_of(node.kwargs.get("alpha", 1), self.weights)
        found: list[tuple[int, Step | None]] = []
        for slot in (0,) if sign < 0 or alpha != 1 else (0, 1):
            other = node.args[1 - slot]
            if not isinstance(node.args[slot], fx.Node) or alpha is None:
                continue
            if isinstance(other, fx.Node) and isinstance(fake_tensor(other), torch.Tensor):
                found.append((slot, Step("add", node, other, sign * alpha)))
            elif not isinstance(other, fx.Node):
                found.append((slot, None))  # a constant added to all scores changes no weight
        return found

    def filled(self, node: fx.Node) -> list[tuple[int, Step | None]]:
        """Match a fill of masked scores with a number."""
        if schema_name(node) == "aten::masked_fill":
            places: list[tuple[int, int, int, Literal["fill", "keep"]]] = [(0, 1, 2, "fill")]
        else:
            places = [(1, 0, 2, "keep"), (2, 0, 1, "fill")]
        found: list[tuple[int, Step | None]] = []
        for slot, mask, fill, kind in places:
            number = number_of(node.args[fill], self.weights)
            operand = node.args[mask]
            if number is not None and isinstance(node.args[slot], fx.Node):
                assert isinstance(operand, fx.Node)
                found.append((slot, Step(kind, node, operand, number)))
        return found


_STEPS: dict[str, Any] = {
    **{name.partition("::")[2]: Walk.same for name in CASTS | VIEWS},
    **dict.fromkeys(("mul", "div"), Walk.scaled),
    **dict.fromkeys(("add", "sub"), Walk.added),
    **dict.fromkeys(("masked_fill", "where"), Walk.filled),
}


def check_kept(node: fx.Node, reader: fx.Node, found: list[fx.Node]) -> None:
    """Refuse steps that move the query or key dimension of the scores."""
    before, after = fake_tensor(node).shape, fake_tensor(reader).shape
    same = len(before) == len(after) and all(map(alike, before, after))
    folds = {len(before), len(after)} == {3, 4} and schema_name(reader) in VIEWS
    if not same and not (folds and all(map(alike, before[-2:], after[-2:]))):
        raise StoppedError(reader, "the scores get another shape here", found)


def alike(one: Size, other: Size) -> bool:
    """Whether two sizes are equal at all lengths."""
    return same_size(one, other) or same_for_examples(one, other)
