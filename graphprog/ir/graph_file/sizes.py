"""Symbolic sizes as JSON: a symbol by its name, or an operation and its operands in a list."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch._dynamo.source import ConstantSource
from torch._guards import ShapeGuard, SLoc
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
from torch.utils._sympy.functions import FloorDiv, Max, Min, Mod, ModularIndexing, PythonMod
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from graphprog.errors import FileError
from graphprog.ir.sizes import expression

_LARGEST = 2**62
_MOST_PARTS = 2_000
_DEEPEST = 24
_HIGHEST_POWER = 8
_MOST_TERMS = 256
_MOST_CHOICES = 16
_MOST_DIMENSIONS = 64  # PyTorch's own limit, which tensors without data are not held to
_FUNCTIONS: dict[str, Any] = {
    "+": sympy.Add,
    "*": sympy.Mul,
    "//": FloorDiv,
    "%": Mod,
    "mod": PythonMod,
    "part": ModularIndexing,
    "max": Max,
    "min": Min,
    "==": sympy.Eq,
}
_OPERATIONS = {function: name for name, function in _FUNCTIONS.items()}

Tree = int | str | list[Any]


def size_tree(size: Any) -> Tree:
    """Convert a size, or an expression of sizes, to JSON.

    Raises:
        FileError: it has an operation that a file cannot hold.
    """
    value = size if isinstance(size, sympy.Basic) else expression(size)
    if value.is_Integer:
        return int(value)
    if value.is_Symbol:
        return str(value)
    if isinstance(value, sympy.Pow) and value.exp.is_Integer:
        return ["**", size_tree(value.base), int(value.exp)]
    for function, name in _OPERATIONS.items():
        if isinstance(value, function):
            return [name, *(size_tree(part) for part in value.args)]
    raise FileError(
        f"a size {value} cannot be stored", ["capture the model with fewer dynamic axes"]
    )


def size_of(tree: Any, symbols: Mapping[str, sympy.Symbol]) -> Any:
    """Convert a tree to an expression; its parts are counted first, to bound the time.

    Raises:
        FileError: it is not a size, or one larger than any model's.
    """
    check_bounds(tree)
    return _built(tree, symbols)


def check_bounds(tree: Any) -> None:
    """Check that a tree has no more parts, multiplied out or not, than sizes of models have.

    Raises:
        FileError: it has, and arithmetic with it might not end.
    """
    if _count(tree, 0) > _MOST_PARTS or _terms(tree) > _MOST_TERMS:
        raise FileError("a size has more parts than that of any model")


def _terms(tree: Any) -> int:
    """Return how many terms an expression has once products of sums are multiplied out."""
    if not isinstance(tree, list):
        return 1
    name, parts = tree[0] if tree else None, [_terms(part) for part in tree[1:]]
    if max(parts, default=1) > _MOST_TERMS:
        return _MOST_TERMS + 1
    if name == "+":
        return sum(parts)
    if name == "*":
        return functools.reduce(lambda one, other: min(one * other, _MOST_TERMS + 1), parts, 1)
    if name == "**":
        power = tree[2] if len(tree) == 3 and isinstance(tree[2], int) else _HIGHEST_POWER
        return int(parts[0] ** min(abs(power), _HIGHEST_POWER))
    if name in ("max", "min", "and", "or") and len(parts) > _MOST_CHOICES:
        return _MOST_TERMS + 1  # each is compared with every other
    return 1


def check_number(value: Any) -> None:
    """Check that a computed number is one that sizes of models reach.

    Raises:
        FileError: it is larger, or a higher power of the sizes that vary.
    """
    if isinstance(value, int) and abs(value) >= 2**63:
        raise FileError("it computes a number larger than any size")
    if isinstance(value, torch.SymInt) and _degree(expression(value)) > _HIGHEST_POWER:
        raise FileError("it computes a higher power of sizes than that of any model")


def check_dimensions(shape: Sequence[Any]) -> None:
    """Check that arithmetic on a shape ends: the number of its dimensions and of those that vary.

    Raises:
        FileError: there are more than in any model.
    """
    if len(shape) > _MOST_DIMENSIONS:
        raise FileError(
            f"a shape of {len(shape)} dimensions, and tensors have {_MOST_DIMENSIONS} at most"
        )
    degree = sum(_degree(expression(size)) for size in shape if isinstance(size, torch.SymInt))
    if degree > _HIGHEST_POWER:
        raise FileError(
            f"the entries of a tensor are the power {degree} of sizes that vary, and those of a "
            f"model {_HIGHEST_POWER} at most"
        )


@functools.lru_cache(maxsize=4096)
def _degree(size: sympy.Basic) -> int:
    """Return the power with which an expression grows, at most."""
    if size.is_Symbol:
        return 1
    parts = [_degree(part) for part in size.args]
    if isinstance(size, sympy.Pow) and size.exp.is_Integer:
        return parts[0] * abs(int(size.exp))
    return sum(parts) if isinstance(size, sympy.Mul) else max(parts, default=0)


def _count(tree: Any, depth: int) -> int:
    if depth > _DEEPEST:
        raise FileError("a size is nested deeper than that of any model")
    return 1 + sum(_count(part, depth + 1) for part in tree) if isinstance(tree, list) else 1


def _built(tree: Any, symbols: Mapping[str, sympy.Symbol]) -> Any:
    if isinstance(tree, int) and not isinstance(tree, bool) and abs(tree) < _LARGEST:
        return sympy.Integer(tree)
    if isinstance(tree, str) and tree in symbols:
        return symbols[tree]
    if isinstance(tree, list) and len(tree) >= 2 and isinstance(tree[0], str):
        if tree[0] == "**":
            return _power(tree[1:], symbols)
        if tree[0] in _FUNCTIONS:
            return _applied(tree[0], [_built(part, symbols) for part in tree[1:]])
    raise FileError(f"{tree!r:.80} is not a size")


def _power(parts: list[Any], symbols: Mapping[str, sympy.Symbol]) -> Any:
    base, exponent = parts if len(parts) == 2 else (None, None)
    if (
        not isinstance(base, str)
        or type(exponent) is not int
        or not 2 <= exponent <= _HIGHEST_POWER
    ):
        raise FileError(f"{['**', *parts]!r:.80} is not a size: a power is that of one symbol")
    return _built(base, symbols) ** exponent


def _applied(name: str, parts: list[Any]) -> Any:
    try:
        return _FUNCTIONS[name](*parts)
    except Exception as error:
        raise FileError(f"{name!r} of {len(parts)} parts is not a size: {error}") from error


def sizes_document(
    environment: ShapeEnv, sizes: Iterable[Any], letters: Mapping[sympy.Symbol, sympy.Symbol]
) -> dict[str, Any]:
    """Return the symbols of sizes: letters, examples, ranges, and relations from capture."""
    free = {symbol for size in sizes for symbol in expression(size).free_symbols}
    ordered = sorted(free, key=str)
    known = [
        size_tree(guard.expr)
        for guard in environment.guards
        if isinstance(guard.expr, sympy.Eq) and guard.expr.free_symbols <= free
    ]
    return {
        "symbols": [_symbol_entry(environment, symbol, letters) for symbol in ordered],
        "equations": known,
        "divisible": [
            size_tree(part) for part in environment.divisible if part.free_symbols <= free
        ],
    }


def _symbol_entry(
    environment: ShapeEnv, symbol: sympy.Symbol, letters: Mapping[sympy.Symbol, sympy.Symbol]
) -> dict[str, Any]:
    known = environment.var_to_range[symbol]
    return {
        "name": str(symbol),
        "letter": str(letters[symbol]) if symbol in letters else None,
        "example": int(environment.create_symintnode(symbol, hint=None).node.hint),  # type: ignore[union-attr]
        "least": int(known.lower),
        "most": int(known.upper) if known.upper.is_Integer else None,
    }


class Sizes:
    """The symbolic sizes of a graph that is being read.

    Attributes:
        environment: the shape environment that all of them belong to.
        letters: canonical letters, by symbol.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.environment = ShapeEnv(specialize_zero_one=True, duck_shape=True)
        self.letters: dict[sympy.Symbol, sympy.Symbol] = {}
        self._symbols: dict[str, sympy.Symbol] = {}
        self._examples: dict[sympy.Symbol, sympy.Integer] = {}
        for entry in document["symbols"]:
            self._add(entry)
        for tree in document["equations"]:
            self.environment.guards.append(
                ShapeGuard(self._relation(tree, sympy.Eq), SLoc(None, None), False)
            )
        for tree in document["divisible"]:
            self.environment.divisible.add(self._relation(tree, sympy.Basic))

    def _add(self, entry: Mapping[str, Any]) -> None:
        name, example, letter = str(entry["name"]), int(entry["example"]), entry["letter"]
        least, most = int(entry["least"]), entry["most"]
        if not 0 <= least <= example or not example <= (_LARGEST if most is None else int(most)):
            raise FileError(f"the example {example} of size {name!r:.40} is not in its range")
        symbol = self.environment.create_symbol(example, ConstantSource(name), DimDynamic.DYNAMIC)
        upper = int_oo if most is None else sympy.Integer(int(most))
        self.environment.var_to_range[symbol] = ValueRanges(sympy.Integer(least), upper)
        self._symbols[name] = symbol
        self._examples[symbol] = sympy.Integer(example)
        if letter is not None:
            if not str(letter).isidentifier():
                raise FileError(f"{letter!r:.40} is not the letter of a size")
            self.letters[symbol] = sympy.Symbol(str(letter), integer=True, positive=True)

    def _relation(self, tree: Any, kind: type) -> Any:
        found = size_of(tree, self._symbols)
        if not isinstance(found, kind):
            raise FileError(f"{tree!r:.80} says nothing of a size")
        return found

    def size(self, tree: Any) -> int | torch.SymInt:
        """Convert a tree to a size of a tensor."""
        found = size_of(tree, self._symbols)
        if found.is_Integer:
            return int(found)
        if not isinstance(found, sympy.Expr):
            raise FileError(f"{tree!r:.80} is not a size")
        example = int(found.xreplace(self._examples))
        size: int | torch.SymInt = self.environment.create_symintnode(found, hint=example)
        return size
