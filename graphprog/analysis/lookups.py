"""Lookups: where a graph reads a table by the numbers of one of its inputs."""

from __future__ import annotations

from torch import fx

from graphprog.ir.fake import fake_tensor
from graphprog.ir.printing import operator_name

_KEEPS_NUMBERS = {
    "view",
    "reshape",
    "to",
    "_to_copy",
    "clone",
    "contiguous",
    "unsqueeze",
    "squeeze",
}


def ids_of(node: fx.Node) -> fx.Node | None:
    """The input by whose numbers a node looks a table up; None where it does no such thing."""
    if node.op != "call_function" or operator_name(node) != "embedding":
        return None
    ids = node.args[1]
    while isinstance(ids, fx.Node) and operator_name(ids) in _KEEPS_NUMBERS:
        ids = ids.args[0]
    return ids if isinstance(ids, fx.Node) and ids.op == "placeholder" else None


def rows_of(node: fx.Node) -> int:
    """How many rows the table of a lookup has."""
    return int(fake_tensor(node.args[0]).shape[0])
