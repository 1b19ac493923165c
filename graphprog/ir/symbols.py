"""Canonical names of symbolic sizes: B, S, ... by first appearance."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import sympy
import torch

_PREFERRED = ("B", "S", "T", "U", "V")


def name_symbols(
    shapes: list[tuple[tuple[Any, ...], Mapping[int, str]]],
) -> dict[sympy.Symbol, sympy.Symbol]:
    """Assign a letter to each free symbol of the input shapes.

    Args:
        shapes: for every input, its shape and the names the user gave its axes; a named axis
            takes the first letter of its name (``batch`` is B), others the next free one.
    """
    names: dict[sympy.Symbol, sympy.Symbol] = {}
    taken: set[str] = set()
    for shape, axes in shapes:
        for axis, size in enumerate(shape):
            if not isinstance(size, torch.SymInt):
                continue
            for symbol in sorted(size.node.expr.free_symbols, key=str):
                if symbol in names:
                    continue
                wanted = axes.get(axis, "")[:1].upper()
                letters = [wanted] if wanted else []
                letters += [*_PREFERRED, *(f"N{i}" for i in range(1, 1000))]
                letter = next(candidate for candidate in letters if candidate not in taken)
                taken.add(letter)
                names[symbol] = sympy.Symbol(letter, integer=True, positive=True)
    return names


def with_letters(
    names: Mapping[sympy.Symbol, sympy.Symbol], sizes: Mapping[str, torch.SymInt]
) -> dict[sympy.Symbol, sympy.Symbol]:
    """Add names of further sizes, by the letter that each gets if it is free."""
    found, taken = dict(names), {str(letter) for letter in names.values()}
    for wanted, size in sizes.items():
        letters = [wanted, *_PREFERRED, *(f"N{i}" for i in range(1, 1000))]
        letter = next(candidate for candidate in letters if candidate not in taken)
        taken.add(letter)
        found[size.node.expr] = sympy.Symbol(letter, integer=True, positive=True)
    return found


def in_letters(text: str, names: Mapping[sympy.Symbol, sympy.Symbol]) -> str:
    """Return a text with the canonical letters in place of a tracer's own names of sizes."""
    letters = {str(symbol): str(letter) for symbol, letter in names.items()}
    return re.sub(r"\b[su]\d+\b", lambda found: letters.get(found[0], found[0]), text)


def size_text(size: Any, names: Mapping[sympy.Symbol, sympy.Symbol]) -> int | str:
    """Return a size as an int, or as text over the canonical letters."""
    if isinstance(size, torch.SymInt):
        expression = size.node.expr
        if expression.is_number:
            return int(expression)
        return _text(expression.xreplace(dict(names)))
    return int(size)


@lru_cache(maxsize=4096)
def _text(expression: sympy.Expr) -> str:
    return str(expression).replace(" ", "")
