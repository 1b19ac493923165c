"""Lengths of axes: which sizes of a graph change when one axis becomes longer."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import sympy
import torch
from torch._dynamo.source import ConstantSource
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
from torch.utils._sympy.symbol import SymT, symbol_is_type

Size = int | torch.SymInt

SLICE_END = 2**63 - 1
"""The end of a slice that takes everything up to the last entry, as ATen writes it."""

_EXAMPLES = (2, 3, 17, 64, 997, 4_801, 10_007, 16_000, 99_999)
"""Lengths at which sizes are compared numerically if algebra cannot compare them."""


def expression(size: Any) -> sympy.Expr:
    """Return a size as an expression over the symbols of its graph."""
    if is_symbolic(size):
        found: sympy.Expr = size.node.expr
        return found
    number: sympy.Expr = sympy.sympify(size)
    return number


def same_size(one: Size, other: Size) -> bool:
    """Whether two sizes are equal for all values of the symbols; adds no shape guard."""
    first, second = (_any_count(expression(size)) for size in (one, other))
    return bool(first == second or sympy.expand(first - second) == 0)


def counts_data(size: Size) -> bool:
    """Whether a size depends on data, such as the number of true entries of a mask."""
    return bool(_counts(expression(size)))


def _counts(size: sympy.Expr) -> list[sympy.Symbol]:
    return [symbol for symbol in size.free_symbols if symbol_is_type(symbol, SymT.UNBACKED_INT)]


def _any_count(size: sympy.Expr) -> sympy.Expr:
    """Rename all data-dependent counts to one symbol, because every run renames them."""
    if not (counts := _counts(size)):
        return size
    mark = sympy.Symbol("count", integer=True, nonnegative=True)
    return size.xreplace(dict.fromkeys(counts, mark))


def same_for_examples(one: Size, other: Size) -> bool:
    """Whether two sizes are equal at many lengths, if algebra cannot show that they are equal.

    An example is divisions nested differently, such as ``(s//2)//2`` and ``s//4``.
    """
    first, second = expression(one), expression(other)
    symbols = sorted(first.free_symbols | second.free_symbols, key=str)
    return bool(symbols) and all(
        first.xreplace(lengths) == second.xreplace(lengths)
        for start in _EXAMPLES
        for lengths in [{s: sympy.Integer(start + 3 * at) for at, s in enumerate(symbols)}]
    )


def same_shape(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two traced tensors have the same shape."""
    return one.ndim == other.ndim and all(map(same_size, one.shape, other.shape))


def has_length(value: Any, size: Size) -> bool:
    """Whether a value is a tensor with a dimension of this size."""
    return isinstance(value, torch.Tensor) and any(same_size(one, size) for one in value.shape)


def is_symbolic(value: Any) -> bool:
    """Whether a value is a dynamic size, or computed from dynamic sizes."""
    return isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool)


def differ(one: Any, other: Any) -> bool:
    """Whether two traced values differ in shape, or are different sizes."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return not same_shape(one, other)
    if isinstance(one, list | tuple):
        return len(one) != len(other) or any(map(differ, one, other))
    return bool(expression(one) != expression(other)) if is_symbolic(one) else one is not other


@dataclasses.dataclass(frozen=True)
class Stretch:
    """An axis of ``size`` entries that is extended by ``added`` entries.

    A symbolic size determines which other sizes are the same axis: those that contain its
    expression. A numeric size does not, and equal numbers are not assumed to be the axis.
    """

    size: Size
    added: int

    @property
    def symbolic(self) -> bool:
        """Whether the size is dynamic, and so recognized in other sizes."""
        return not expression(self.size).is_number

    def after(self, size: Any) -> sympy.Expr:
        """Return an expression after the extension."""
        old = expression(size)
        axis = expression(self.size)
        if axis.is_number:
            return old
        symbols = list(axis.free_symbols)
        if len(symbols) == 1 and (axis - symbols[0]).is_number:  # extended before
            return sympy.expand(old.subs(symbols[0], symbols[0] + self.added))
        mark = sympy.Symbol("axis", integer=True, positive=True)
        marked = old.subs(axis, mark)
        if marked.has(mark):
            return marked.subs(mark, axis + self.added)
        if not axis.is_Symbol and (old - axis).is_number:
            return old + self.added
        return old

    def stated(self, size: torch.SymInt, grown: torch.SymInt) -> torch.SymInt:
        """Return a size of this axis after the extension, given a stand-in for the longer axis."""
        axis, longer = expression(self.size), expression(grown)
        symbols = list(axis.free_symbols)
        after = self.after(size)
        if len(symbols) == 1 and (axis - symbols[0]).is_number:
            after = after.subs(symbols[0], longer - self.added - (axis - symbols[0]))
        after = sympy.expand(after.subs(axis, longer - self.added))
        environment: ShapeEnv = grown.node.shape_env
        found = environment.create_symintnode(after, hint=None)
        assert isinstance(found, torch.SymInt)
        return found

    def growth(self, size: Any) -> sympy.Expr:
        """Return the growth of a size; zero for sizes of other axes."""
        return sympy.expand(self.after(size) - expression(size))

    def carried_by(self, value: Any) -> bool:
        """Whether a size, or the shape of a value, contains the axis."""
        sizes = value.shape if isinstance(value, torch.Tensor) else [value]
        return any(is_symbolic(size) and self.after(size) != expression(size) for size in sizes)


_EXAMPLE = 10_007


def stand_in(size: torch.SymInt, added: int) -> torch.SymInt:
    """Return a new symbolic size for an extended axis.

    Kernels ask about divisibility and order of sizes, which can be answered for a symbol but often
    not for a sum. Its example is a large prime that the axis could have, so that it does not equal
    or divide other sizes by chance, and sizes that capture assumed to be equal, such as a slice of
    a position table and the sequence, are equal. :func:`resolve` later sets its value.
    """
    environment: ShapeEnv = size.node.shape_env
    known = environment.bound_sympy(size.node.expr)
    most = _EXAMPLE if known.upper > _EXAMPLE else int(known.upper)
    least = int(size.node.hint) + added
    relied = _relied_on(environment, size)
    primes = (n for n in range(most, least, -1) if sympy.isprime(n))
    hint = next((n for n in primes if all(rule(n) for rule in relied)), least)
    return fresh_size(size, hint)


def fresh_size(like: torch.SymInt, hint: int) -> torch.SymInt:
    """Return a size without known properties, for the graph of another size."""
    environment: ShapeEnv = like.node.shape_env
    source = ConstantSource(f"grown_{len(environment.var_to_range)}")
    symbol = environment.create_symbol(hint, source, DimDynamic.DYNAMIC, None)
    node = environment.create_symintnode(symbol, hint=hint, source=source)
    assert isinstance(node, torch.SymInt)
    return node


def _relied_on(environment: ShapeEnv, size: torch.SymInt) -> list[Callable[[int], bool]]:
    """Return the equations of only this size that capture relied on, as tests of a length."""
    symbol = expression(size)
    equations = {guard.expr for guard in environment.guards if isinstance(guard.expr, sympy.Eq)}
    return [
        functools.partial(_holds, equation, symbol)
        for equation in equations
        if equation.free_symbols == {symbol}
    ]


def _holds(equation: sympy.Eq, symbol: sympy.Symbol, length: int) -> bool:
    return bool(equation.xreplace({symbol: sympy.Integer(length)}) != sympy.false)


def resolve(grown: torch.SymInt, size: torch.SymInt, added: int) -> None:
    """Set a stand-in to the old size plus the added entries, wherever it is used."""
    environment: ShapeEnv = grown.node.shape_env
    environment._set_replacement(grown.node._expr, size.node.expr + added, "an axis was extended")
