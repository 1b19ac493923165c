"""Dynamic axes whose length tracing fixed through a value computed from it."""

from __future__ import annotations

import sympy
import torch

from graphprog.errors import CaptureError
from graphprog.ir.fake import fake_value
from graphprog.ir.graph import Graph

_LENGTHS = 512


def check_free(graph: Graph) -> None:
    """Refuse a graph in which a dynamic axis is fixed although its length is a symbol.

    Some operations take only numbers. If a model passes them a value computed from a length,
    tracing inserts the number and relies on an equation such as ``S//2 = 4``.

    Raises:
        CaptureError: names the input, the axis and the equation.
    """
    for node in graph.placeholders:
        for axis, size in enumerate(fake_value(node).shape):
            if not isinstance(size, torch.SymInt) or not size.node.expr.is_Symbol:
                continue
            for guard in size.node.shape_env.guards:
                if _pins(guard.expr, size):
                    equation = guard.expr.xreplace(dict(graph.symbols))
                    raise CaptureError(
                        f"tracing fixed axis {axis} of {node.target}, because it relied on "
                        f"{equation.lhs} = {equation.rhs}",
                        [
                            "look for pooling or another operation that takes only numbers",
                            "leave the axis out of dynamic_axes, and capture once per length",
                        ],
                    )


def _pins(guard: sympy.Basic, size: torch.SymInt) -> bool:
    """Whether an equation for a length fails at every length of twice the example's or more."""
    symbol = size.node.expr
    if not isinstance(guard, sympy.Eq) or guard.free_symbols != {symbol}:
        return False
    start = 2 * int(size.node.hint)
    upper = size.node.shape_env.bound_sympy(symbol).upper
    stop = min(start + _LENGTHS, int(upper) + 1) if upper.is_Integer else start + _LENGTHS
    lengths = (sympy.Integer(length) for length in range(start, stop))
    return start < stop and not any(guard.xreplace({symbol: n}) != sympy.false for n in lengths)
