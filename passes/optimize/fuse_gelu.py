"""Compute a GELU that is written out by one operation."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import fx

from graphprog.ir.graph import Graph
from graphprog.ir.ops import schema_name
from graphprog.passes.base import Pass
from graphprog.passes.optimize.source_edit import require_source
from graphprog.rewriting.editor import Editor
from graphprog.spec.registry import spec

_aten = torch.ops.aten
_SCALE, _CUBIC = math.sqrt(2 / math.pi), 0.044715


@spec("fuse-gelu")
@dataclasses.dataclass(frozen=True)
class FuseGelu(Pass):
    """Compute x/2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³))) by one operation.

    Models such as GPT-2 write this GELU out in eight operations, and a backward pass keeps the
    results of five; of the one operation it keeps x. Equal up to rounding. Interfaces inside
    vanish. What something else reads, too, stays as it is.

    Example:
        >>> fused = gp.passes.FuseGelu()(graph)
        >>> assert torch.allclose(fused(images), graph(images), atol=1e-5)
    """

    def requires(self, graph: Graph) -> None:
        """Refuse a graph that has a program in it.

        Raises:
            PassError: it has.
        """
        require_source("fuse-gelu", graph)

    def run(self, graph: Graph) -> Graph:
        """Replace every match."""
        edit = Editor(graph, str(self))
        for node in list(edit.code.nodes):
            found = _match(node)
            if found is not None:
                _replace(edit, node, *found)
        edit.erase_dead()
        return edit.finish()


def _replace(edit: Editor, old: fx.Node, value: fx.Node, inside: set[fx.Node]) -> None:
    """Put one operation in place of a match; interfaces at its value and its result stay."""
    given = {"approximate": "tanh"}
    new = edit.call(_aten.gelu.default, (value,), before=old, part="", kwargs=given)
    new.meta = {**old.meta, "val": new.meta["val"], "made_by": edit.made_by}
    for site in edit.sites.values():
        outside = {edge for edge in site.edges if edge[0] not in inside}
        if site.node is value and outside != site.edges:
            site.edges = outside | {(new, 0)}
    edit.substitute(old, new, fused=True)


def _match(result: fx.Node) -> tuple[fx.Node, set[fx.Node]] | None:
    """Return x, and the operations on it, where a node is the last of a GELU."""
    for half, rest in _pairs(result, "aten::mul"):
        value, shifted = _by(half, "aten::mul", 0.5), _by(rest, "aten::add", 1.0)
        if value is None or not _calls(shifted, "aten::tanh"):
            continue
        scaled = shifted.args[0]
        total = _by(scaled, "aten::mul", _SCALE)
        for one, other in _pairs(total, "aten::add"):
            power = _by(other, "aten::mul", _CUBIC)
            if one is value and power is not None and _by(power, "aten::pow", 3.0) is value:
                inside = {result, half, rest, shifted, scaled, total, other, power}
                alone = all(set(node.users) <= inside for node in inside - {result})
                return (value, inside) if alone else None
    return None


def _pairs(node: Any, name: str) -> list[tuple[fx.Node, fx.Node]]:
    """Return both orders of the operands of an operation on two values; none if it is another."""
    if not _calls(node, name) or len(node.args) != 2:
        return []
    one, other = node.args
    both = isinstance(one, fx.Node) and isinstance(other, fx.Node)
    return [(one, other), (other, one)] if both else []


def _by(node: Any, name: str, number: float) -> Any:
    """Return the value that an operation takes together with a number; None if it is another."""
    if not _calls(node, name) or len(node.args) != 2:
        return None
    value, given = node.args
    same = isinstance(given, int | float) and math.isclose(given, number, rel_tol=1e-6)
    return value if same and isinstance(value, fx.Node) else None


def _calls(node: Any, name: str) -> bool:
    return isinstance(node, fx.Node) and schema_name(node) == name and not node.kwargs
