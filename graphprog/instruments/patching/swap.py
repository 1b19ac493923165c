"""A graph whose values at interfaces can be replaced, or traced, in a run."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from graphprog.ir.execution import copy_code, executable
from graphprog.ir.graph import Graph
from graphprog.ir.interface import Interface
from graphprog.rewriting.edges import set_leaf


class Swapped:
    """Runs a graph with the values at interfaces replaced or traced; nothing is compiled again.

    Args:
        graph: the graph.
        places: the interfaces that can be changed, by name; as for a program, only the uses that
            belong to an interface read the new value.
        reads: those whose values are returned after the outputs of the graph.
    """

    def __init__(
        self, graph: Graph, places: Mapping[str, Interface], reads: Sequence[str] = ()
    ) -> None:
        self.names = list(places)
        code, mapping = copy_code(graph.code)
        named = {old.name: new for old, new in mapping.items()}
        results = [mapping.get(one, one) for one in graph.output_nodes]
        with code.inserting_before(next(iter(code.nodes))):
            inputs = [code.placeholder(f"change_{index}") for index, _ in enumerate(self.names)]
        changed = {}
        for (name, place), change in zip(places.items(), inputs, strict=True):
            old = named[place.node]
            with code.inserting_after(old):
                new = changed[name] = code.call_function(_changed, (old, change))
            for edge in place.edges:
                user = named.get(edge.user) or code.output_node()
                if user.op != "output":
                    set_leaf(user, edge.slot, new)
            touched = any(edge.user == "output" for edge in place.edges)
            results = [new if one is old and touched else one for one in results]
        code.output_node().args = ((*results, *(changed[name] for name in reads)),)
        numbers = {node.name: number for number, node in enumerate(graph.code.nodes)}
        self._order = sorted(places, key=lambda name: numbers[places[name].node])
        self._code, self._nodes, self._outputs = code, changed, len(results)
        self._runnable = functools.partial(
            executable, weights=graph.weights, device=graph.device, name="Swapped"
        )
        self._run = self._runnable(code)
        self._parts: dict[str, fx.GraphModule] = {}

    @classmethod
    def of(
        cls, graph: Graph, places: Mapping[str, Interface], reads: Sequence[str] = ()
    ) -> Swapped:
        """Return the code for these interfaces, which the graph keeps for the next call."""
        keys = tuple((name, place.key) for name, place in places.items())
        return graph.kept((cls, keys, tuple(reads)), lambda: cls(graph, places, reads))

    def __call__(
        self,
        flat: Sequence[torch.Tensor],
        swaps: Mapping[str, tuple[torch.Tensor, torch.Tensor]] | None = None,
        traced: bool = False,
    ) -> tuple[Any, ...]:
        """Run on flat inputs; returns the outputs, then the values that are read.

        Args:
            flat: the inputs, in order, on the device of the graph.
            swaps: for an interface a bool mask and a value; the value is taken where the mask is
                true. Both broadcast to the value at the interface.
            traced: whether outputs can be differentiated by the values that are read.
        """
        changes = [(swaps or {}).get(name, traced) for name in self.names]
        found: tuple[Any, ...] = self._run(*changes, *flat)
        return found

    def onward(
        self,
        flat: Sequence[torch.Tensor],
        swaps: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
        others: Mapping[str, torch.Tensor],
    ) -> tuple[Any, ...]:
        """Run what comes after the first of the changed interfaces; returns the outputs.

        Args:
            flat: the inputs, in order, on the device of the graph.
            swaps: as for a call; the masks of the first interface have a row for each row.
            others: values of a run without changes, one row, which hold where a mask is false.
        """
        first = next(name for name in self._order if name in swaps)
        changes: list[Any] = [swaps.get(name, False) for name in self.names]
        mask, value = swaps[first]
        changes[self.names.index(first)] = torch.where(mask, value, others[first])
        if first not in self._parts:
            self._parts[first] = self._part(first)
        found: tuple[Any, ...] = self._parts[first](*changes, *flat)
        return found

    def _part(self, first: str) -> fx.GraphModule:
        """Return the code to which the value at an interface is given as a whole."""
        code, mapping = copy_code(self._code)
        start = mapping[self._nodes[first]]
        _, change = start.args
        assert isinstance(change, fx.Node)
        start.replace_all_uses_with(change)
        outputs: Any = code.output_node().args[0]
        return self._runnable(code, outputs=outputs[: self._outputs])


def _changed(value: torch.Tensor, change: tuple[torch.Tensor, torch.Tensor] | bool) -> torch.Tensor:
    if change is False:
        return value
    if change is not True:
        return torch.where(change[0], change[1], value)
    return value.view_as(value) if value.requires_grad else value.detach().requires_grad_()
