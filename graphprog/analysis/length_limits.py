"""How long an axis may be before positions exceed the rows of a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import sympy
import torch
from torch import fx

from graphprog.analysis.constants import number_in
from graphprog.analysis.input_meaning import inferred_meaning
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.ops import CASTS, VIEWS, schema_name
from graphprog.ir.sizes import SLICE_END, Size, expression, is_symbolic

_SAME_NUMBERS = CASTS | VIEWS
_SAME_NUMBERS |= {f"aten::{name}" for name in ("unsqueeze", "squeeze", "select", "slice")}
_SAME_NUMBERS |= {"aten::constant_pad_nd"}  # masks, by ones


@dataclasses.dataclass(frozen=True)
class PositionTable:
    """A table of the model, and how many of its rows the inputs need.

    Attributes:
        name: name of the table.
        rows: its number of rows.
        needed: number of rows that are read, over the symbols of the graph.
        exact: whether every call of these sizes reads them; else masks may leave some out.
    """

    name: str
    rows: int
    needed: sympy.Expr
    exact: bool

    def at_capture(self, graph: Graph) -> int | None:
        """Return the number of rows that the example of capture needs; None if unknown."""
        sizes: list[Size] = [one for node in graph.placeholders for one in fake_tensor(node).shape]
        hints = {
            expression(size): sympy.Integer(int(size.node.hint))
            for size in sizes
            if isinstance(size, torch.SymInt) and size.node.has_hint()
        }
        found = self.needed.xreplace(hints)
        return int(found) if found.is_Integer else None


def position_tables(graph: Graph) -> list[PositionTable]:
    """Return the tables of a graph that are read at positions counted from a length."""
    return list(_tables(graph.code))


def _tables(code: fx.Graph) -> Iterator[PositionTable]:
    for node in code.nodes:
        table = node.args[0] if node.args else None
        if not isinstance(table, fx.Node) or table.op != "get_attr":
            continue
        name = str(table.target).removeprefix("source.")
        if schema_name(node) == "aten::embedding":
            rows = fake_tensor(table).shape[0]
            last, exact = _largest(node.args[1])
            if last is not None and isinstance(rows, int):
                yield PositionTable(name, rows, sympy.expand(last + 1), exact)
        elif schema_name(node) == "aten::slice" and len(node.args) > 3:
            _, dim, _, end = node.args[:4]
            rows, value = fake_tensor(table).shape[dim], _size(end)
            if value is not None and value != SLICE_END and isinstance(rows, int):
                yield PositionTable(name, rows, value, True)


def _size(value: Any) -> sympy.Expr | None:
    """Return a size as an expression; None for anything else."""
    found = value.meta.get("val") if isinstance(value, fx.Node) else value
    number = isinstance(found, int) and not isinstance(found, bool)
    return expression(found) if number or is_symbolic(found) else None


_Bound = tuple[sympy.Expr | None, bool]


def _largest(value: Any) -> _Bound:
    """Return the largest of some integers if it is known, and whether it always occurs."""
    if not isinstance(value, fx.Node):
        return _size(value), True
    name, tensor = schema_name(value), value.meta.get("val")
    if not isinstance(tensor, torch.Tensor):
        return _size(value), True
    if tensor.dtype == torch.bool:
        return sympy.Integer(1), False
    if (number := number_in(value)) is not None:
        return sympy.sympify(int(number)), True
    if value.op == "placeholder":
        mask = inferred_meaning(value).role == "present"
        return (sympy.Integer(1), False) if mask else (None, False)
    if name == "aten::arange":
        end = _size(value.args[0 if len(value.args) == 1 else 1])
        return (None if end is None or len(value.args) > 2 else end - 1), True
    if name in _SAME_NUMBERS:
        return _largest(value.args[0])
    if name == "aten::cat":
        parts = [_largest(part) for part in value.args[0]]  # type: ignore[union-attr]
        return parts[0] if len(set(parts)) == 1 else (None, False)
    return _combined(name, value)


def _combined(name: str, value: fx.Node) -> _Bound:
    """Return the largest result of an operation of one or two operands."""
    if name not in ("aten::add", "aten::sub", "aten::mul", "aten::cumsum") or value.kwargs:
        return None, False
    (one, first), (other, second) = _largest(value.args[0]), _largest(value.args[1])
    if one is None or other is None or len(value.args) > 2:
        return None, False
    if name == "aten::add":
        return one + other, first and second
    if name == "aten::mul":
        return one * other, first and second
    if name == "aten::cumsum":
        return one * expression(fake_tensor(value).shape[int(other)]), first
    return (one - other, first) if not isinstance(value.args[1], fx.Node) else (None, False)
