"""A graph whose values at interfaces can be replaced, or shifted, by inputs of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from graphprog.ir.execution import copy_code, executable
from graphprog.ir.graph import Graph
from graphprog.ir.interface import Interface
from graphprog.rewriting.edges import set_leaf


class Swapped:
    """Runs a graph with the values at interfaces replaced or shifted; nothing is compiled again.

    Args:
        graph: the graph.
        places: the interfaces that can be changed, by name; as for a program, only the uses that
            belong to an interface read the new value.
        reads: names of nodes to return after the outputs of the graph.
    """

    def __init__(
        self, graph: Graph, places: Mapping[str, Interface], reads: Sequence[str] = ()
    ) -> None:
        self.graph = graph
        self.names = list(places)
        code, mapping = copy_code(graph.code)
        named = {old.name: new for old, new in mapping.items()}
        results = [mapping.get(one, one) for one in graph.output_nodes]
        read = [named[name] for name in reads]
        with code.inserting_before(next(iter(code.nodes))):
            inputs = [
                tuple(code.placeholder(f"{kind}_{index}") for kind in ("mask", "value", "shift"))
                for index, _ in enumerate(self.names)
            ]
        for place, (mask, value, shift) in zip(places.values(), inputs, strict=True):
            old = named[place.node]
            new = _changed(code, old, mask, value, shift)
            for edge in place.edges:
                user = named.get(edge.user) or code.output_node()
                if user.op != "output":
                    set_leaf(user, edge.slot, new)
            touched = any(edge.user == "output" for edge in place.edges)
            results = [new if one is old and touched else one for one in results]
            read = [new if one is old else one for one in read]
        code.output_node().args = ((*results, *read),)
        self._run = executable(code, graph.weights, None, graph.device, (), "Swapped")

    def __call__(
        self,
        flat: Sequence[torch.Tensor],
        swaps: Mapping[str, tuple[torch.Tensor, torch.Tensor]] | None = None,
        shifts: Mapping[str, torch.Tensor] | None = None,
    ) -> tuple[Any, ...]:
        """Run on flat inputs; returns the outputs, then the values that are read.

        Args:
            flat: the inputs, in order.
            swaps: for an interface a bool mask and a value; the value is taken where the mask is
                true. Both broadcast to the value at the interface.
            shifts: what is added at an interface, after the swap.
        """
        device = self.graph.device
        zero = torch.zeros((), device=device)
        never = zero.bool()
        extra: list[torch.Tensor] = []
        for name in self.names:
            mask, value = (swaps or {}).get(name, (never, zero))
            extra += [mask, value, (shifts or {}).get(name, zero)]
        found: tuple[Any, ...] = self._run(*extra, *flat)
        return found


def _changed(
    code: fx.Graph, old: fx.Node, mask: fx.Node, value: fx.Node, shift: fx.Node
) -> fx.Node:
    with code.inserting_after(old):
        typed = code.call_function(torch.ops.aten.to.other, (value, old))
    with code.inserting_after(typed):
        taken = code.call_function(torch.ops.aten.where.self, (mask, typed, old))
    with code.inserting_after(taken):
        moved = code.call_function(torch.ops.aten.to.other, (shift, taken))
    with code.inserting_after(moved):
        return code.call_function(torch.ops.aten.add.Tensor, (taken, moved))
