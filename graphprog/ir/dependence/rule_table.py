"""Tables of rules: on which axis of a result the rows of a batch lie, given those of operands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

import sympy
from torch import fx

from graphprog.ir.fake import fake_tensor
from graphprog.ir.sizes import expression

Arguments = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Batch:
    """The number of rows: sizes of axis 0 of the inputs, which are taken to be equal."""

    symbols: frozenset[sympy.Symbol]

    @cached_property
    def size(self) -> sympy.Symbol:
        """The symbol that stands for all."""
        return min(self.symbols, key=str)

    def expression(self, size: Any) -> sympy.Expr:
        """Return a size as an expression in which one symbol is the number of rows."""
        return expression(size).xreplace(dict.fromkeys(self.symbols, self.size))

    def among(self, sizes: Iterable[Any]) -> bool:
        """Whether one of these sizes depends on the number of rows."""
        return any(self.symbols & expression(one).free_symbols for one in sizes)

    def per_row(self, size: Any) -> sympy.Expr | None:
        """Return the entries of each row on an axis; None if the axis is not the rows."""
        found = sympy.cancel(self.expression(size) / self.size)
        return None if self.size in found.free_symbols else found


class Rows(dict[fx.Node, int]):
    """The axis of the rows of each operand that has rows."""

    def __init__(self, axes: Mapping[fx.Node, int], batch: Batch) -> None:
        """Keep the axes, and the number of rows."""
        super().__init__(axes)
        self.batch = batch


Rule = Callable[[fx.Node, Arguments, Rows], int | None]
"""From an operation, its arguments by name, and the axes of its operands to the axis of the result;
None if the operation may mix rows."""


class RuleTable(dict[str, Rule]):
    """Rules by name of the operation."""

    def add(self, *names: str) -> Callable[[Rule], Rule]:
        """Return a decorator that makes a function the rule of these operations of ATen."""

        def register(rule: Rule) -> Rule:
            self.update({f"aten::{name}": rule for name in names})
            return rule

        return register


def rank_of(node: Any) -> int:
    """Return the number of axes of a value."""
    return fake_tensor(node).ndim


def is_one(size: Any) -> bool:
    """Whether a size is 1, whatever the sizes of the inputs are."""
    return bool(expression(size) == 1)


def only(rows: Rows, node: Any) -> int | None:
    """Return the axis of an operand if no other has rows."""
    return rows[node] if set(rows) == {node} else None


def aligned(operands: Iterable[fx.Node], rows: Rows, rank: int, last: int = 0) -> int | None:
    """Return the axis on which operands that are broadcast to a rank have their rows.

    Args:
        operands: the tensors.
        rows: the axes of those that have rows.
        rank: of the result.
        last: number of axes at the end that are not broadcast.
    """
    operands = list(operands)
    batched = [one for one in operands if one in rows]
    places = {rows[one] - rank_of(one) + rank for one in batched}
    if len(places) != 1:
        return None
    (place,) = places
    if len({rows.batch.expression(fake_tensor(one).shape[rows[one]]) for one in batched}) != 1:
        return None
    for one in operands:
        own = place - rank + rank_of(one)
        if one not in rows and own >= 0 and not is_one(fake_tensor(one).shape[own]):
            return None
    return place if place < rank - last else None


def dims_of(arguments: Arguments, rank: int) -> set[int] | None:
    """Return the dimensions that an operation names; None if it acts on all."""
    given = arguments.get("dim", arguments.get("dims"))
    if given is None or given == []:
        return None
    return {dim % rank for dim in ([given] if isinstance(given, int) else given)}
