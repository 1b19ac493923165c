"""Tracking an axis through a reshape by aligning factors, never by comparing lengths.

A reshape keeps the order of elements, so its input and output dimensions are two ways of grouping
one sequence of factors. Aligning them from the left shows which output dimension holds which input
dimension, even if several have the same length.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

import sympy

from graphprog.ir.sizes import Size, expression


@dataclasses.dataclass(frozen=True)
class Factor:
    """A part of a dimension: its length before and after, and whether it is the longer axis."""

    before: sympy.Expr
    after: sympy.Expr

    @property
    def moves(self) -> bool:
        """Whether its length changes."""
        return bool(self.before != self.after)


Factors = tuple[Factor, ...]
"""The parts of one dimension, outermost first."""


def whole(before: Size, after: Size) -> Factors:
    """A dimension of one part."""
    return (Factor(expression(before), expression(after)),)


class SplitError(Exception):
    """A reshape splits the axis itself, or mixes it with others in a way that cannot be tracked."""


def reshaped(inputs: Sequence[Factors], outputs: Sequence[Size]) -> list[Factors]:
    """Return the parts of every output dimension of a reshape.

    Args:
        inputs: parts of the input's dimensions.
        outputs: lengths of the output's dimensions before the extension.

    Raises:
        SplitError: an output dimension ends inside a part that changes, or a part with one entry
            can be any of several.
    """
    pending = [factor for factors in inputs for factor in factors]
    _refuse_ones(pending, [expression(size) for size in outputs])
    found = [tuple(_take(pending, expression(size))) for size in outputs]
    if any(factor.moves for factor in pending):
        raise SplitError("an axis is left over")
    return found


def _refuse_ones(parts: Sequence[Factor], outputs: Sequence[sympy.Expr]) -> None:
    """Refuse a part of one entry if the output has more or fewer such dimensions."""
    before = [factor.before for factor in parts]
    places, targets = _ones(before), _ones(outputs)
    for factor, place in zip(parts, _products(before), strict=True):
        ones = factor.moves and factor.before == 1
        if ones and places[place] != targets[place]:
            raise SplitError("it has one entry here, which may belong to any of several dimensions")


def _ones(sizes: Sequence[sympy.Expr]) -> Counter[sympy.Expr]:
    """Count dimensions of one entry by the number of elements before them."""
    pairs = zip(sizes, _products(sizes), strict=True)
    return Counter(place for size, place in pairs if size == 1)


def _products(sizes: Sequence[sympy.Expr]) -> list[sympy.Expr]:
    """Return the product of all sizes before each."""
    return [sympy.expand(math.prod(sizes[:at], start=sympy.Integer(1))) for at in range(len(sizes))]


def _take(pending: list[Factor], wanted: sympy.Expr) -> list[Factor]:
    """Take parts from the left until the product of their lengths is the wanted length."""
    if wanted == 1:
        return [pending.pop(0)] if pending and pending[0].before == 1 else []
    taken: list[Factor] = []
    got = sympy.Integer(1)
    while got != wanted:
        if not pending:
            raise SplitError(f"a dimension of {wanted} has no parts")
        factor = pending.pop(0)
        product = sympy.expand(got * factor.before)
        if product != wanted and not _divides(product, wanted):
            factor, rest = _split(factor, got, wanted)
            pending.insert(0, rest)
            product = wanted
        taken.append(factor)
        got = product
    return taken


def _divides(part: sympy.Expr, total: sympy.Expr) -> bool:
    ratio = sympy.cancel(total / part)
    return bool(ratio.is_polynomial()) and (not ratio.is_number or bool(ratio.is_integer))


def _split(factor: Factor, got: sympy.Expr, wanted: sympy.Expr) -> tuple[Factor, Factor]:
    """Split a part of fixed length in two."""
    if factor.moves:
        raise SplitError("the axis itself is cut")
    need = sympy.cancel(wanted / got)
    if not _divides(need, factor.before):
        raise SplitError("lengths do not line up")
    rest = sympy.cancel(factor.before / need)
    return Factor(need, need), Factor(rest, rest)


def length(factors: Factors) -> sympy.Expr:
    """Return the length of a dimension after the extension of its parts."""
    return sympy.expand(math.prod((factor.after for factor in factors), start=sympy.Integer(1)))
