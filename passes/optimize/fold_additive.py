"""Fold a constant that is added to a value into an affine operation after it."""

from __future__ import annotations

import dataclasses

import torch
from torch import fx

from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.ops import bound, schema_name
from graphprog.passes.base import Pass
from graphprog.passes.optimize.affine_shift import (
    CONVOLUTIONS,
    Shift,
    Stopped,
    first_shift,
    moved,
)
from graphprog.passes.optimize.source_edit import SourceEdit, require_source
from graphprog.rewriting.edges import uses_of
from graphprog.spec.registry import spec

_SUMS = ("aten::add", "aten::sub")


@spec("fold-additive")
@dataclasses.dataclass(frozen=True)
class FoldAdditive(Pass):
    """Add constants where that costs least: in a bias or another constant, if one can take them.

    A constant moves through affine operations: convolutions (at a zero padding it becomes a map,
    which differs at the border), linear layers, normalization by fixed statistics, views, sums and
    factors. The result equals the source up to rounding, and is a source of its own, as after
    ``gp.optimize``. Interfaces at values that no longer have the constant vanish.

    Example:
        >>> frozen = gp.freeze(task)
        >>> folded = gp.passes.FoldAdditive()(frozen)
        >>> assert torch.allclose(folded(images), frozen(images), atol=1e-5)
    """

    def requires(self, graph: Graph) -> None:
        """Refuse a graph that has a program in it."""
        require_source(self.kind, graph)

    def run(self, graph: Graph) -> Graph:
        """Move every constant that becomes cheaper."""
        return _Folding(graph, str(self)).run()

    def refusals(self, graph: Graph) -> list[str]:
        """Return why constants that are added stay where they are, one text for each."""
        self.requires(graph)
        folding = _Folding(graph, str(self))
        folding.run()
        return folding.refused


class _Folding:
    """One run of the pass.

    Attributes:
        refused: why constants were left.
    """

    def __init__(self, graph: Graph, made_by: str) -> None:
        self.graph = graph
        self.source = SourceEdit(graph, made_by, "shifted")
        self.edit = self.source.edit
        self.refused: list[str] = []

    def run(self) -> Graph:
        changed = False
        for node in list(self.edit.code.nodes):
            if schema_name(node) in _SUMS and node.target._overloadname == "Tensor":
                changed |= self._fold(node)
        return self.source.finish() if changed else self.graph

    def _fold(self, add: fx.Node) -> bool:
        one, other = bound(add)["self"], bound(add)["other"]
        value, constant = (other, one) if self.source.is_constant(one) else (one, other)
        if self.source.is_constant(value) or not self.source.is_constant(constant) or not add.users:
            return False
        if not isinstance(value, fx.Node) or bound(add)["alpha"] != 1:
            return False
        if schema_name(add) == "aten::sub" and constant is one:
            return False
        negated = schema_name(add) == "aten::sub"
        try:
            given = self.source.value(constant)
            assert given is not None
            first = first_shift(add, value, -given if negated else given)
        except Stopped as stop:
            self.refused.append(f"{add.name}: {stop}")
            return False
        path, best, taken = self._cheapest(add, first)
        if best is None:
            return False
        self._apply(add, first, path, best, taken)
        return True

    def _cheapest(self, add: fx.Node, first: Shift) -> tuple[list[fx.Node], Shift | None, bool]:
        """Follow a constant to where it costs least.

        Returns:
            The operations on the way, the shift there, and whether that operation takes it.
        """
        shift, path = Shift(add, first.value), [add]
        best: tuple[int, list[fx.Node], Shift | None, bool] = (first.cost, [], None, False)
        reason = ""
        while best[0] > 0:
            if len(shift.node.users) != 1:
                reason = "several operations read it"
                break
            (user,) = shift.node.users
            try:
                after = moved(shift, user, self.source.value)
            except Stopped as stop:
                reason = str(stop)
                break
            path = [*path, user]
            takes = self._takes(shift.node, user, after)
            cost = 0 if takes else after.cost
            if cost < best[0]:
                best = (cost, path, after, takes)
            shift = after
        if best[2] is None:
            where = f" before {reason}" if reason else ""
            self.refused.append(f"{add.name}: no cheaper place{where}")
        return best[1], best[2], best[3]

    def _takes(self, value: fx.Node, user: fx.Node, after: Shift) -> bool:
        """Whether an operation has a constant that can take the shift of its result."""
        name = schema_name(user)
        axes = [axis for axis, size in enumerate(after.value.shape) if size != 1]
        if name in _SUMS:
            one, other = bound(user)["self"], bound(user)["other"]
            return self.source.is_constant(other if one is value else one)
        units = 1 if name in CONVOLUTIONS else after.value.ndim - 1
        if name in CONVOLUTIONS or name == "aten::linear":
            bias = bound(user)["bias"]
            return axes in ([], [units]) and (bias is None or self.source.is_constant(bias))
        return False

    def _apply(
        self, add: fx.Node, first: Shift, path: list[fx.Node], best: Shift, taken: bool
    ) -> None:
        edit, end = self.edit, best.node
        stale = {*path, first.node} - {end, first.node}
        edit.drop_sites([key for key, site in edit.sites.items() if site.node in stale])
        dtype = fake_tensor(end).dtype
        before_end = path[path.index(end) - 1]
        name = schema_name(end)
        if taken and name in _SUMS:
            one, other = bound(end)["self"], bound(end)["other"]
            constant = other if one is before_end else one
            known = self.source.value(constant)
            assert known is not None
            minus = name == "aten::sub" and constant is other
            total = best.value + (-known.double() if minus else known.double())
            new = self.source.store(total.to(dtype), end)
            subtracts = name == "aten::sub" and constant is one
            end.args = (new, before_end) if subtracts else (before_end, new)
            end.kwargs = {}
            end.target = torch.ops.aten.sub.Tensor if subtracts else torch.ops.aten.add.Tensor
        elif taken:
            given = bound(end)
            units = fake_tensor(end).shape[1 if name in CONVOLUTIONS else -1]
            own = given["bias"]
            known = None if own is None else self.source.value(own)
            bias = best.value.flatten().expand(int(units))
            bias = bias if known is None else bias + known.double()
            new = self.source.store(bias.to(dtype), end)
            rest = {key: item for key, item in end.kwargs.items() if key != "bias"}
            end.args, end.kwargs = (*end.args[:2], new, *end.args[3:]), rest
        else:
            new = self.source.store(best.value.to(dtype), end.next)
            uses = set(uses_of(end))
            total_node = self.source.call(torch.ops.aten.add.Tensor, (end, new), new.next, add)
            edit.redirect(end, uses, total_node, before={(total_node, 0)})
        for constant in set(add.all_input_nodes) - {first.node}:
            read = [key for key, site in edit.sites.items() if site.node is constant]
            edit.drop_sites([k for k in read if {edge[0] for edge in edit.sites[k].edges} <= {add}])
        edit.substitute(add, first.node)
