"""The graph that a training step runs: that of the program, without what nobody reads."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import fx

from graphprog.errors import GraphprogError
from graphprog.ir.call_spec import CallSpec
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.ops import schema_name
from graphprog.ir.printing import provenance_of
from graphprog.ir.sizes import fresh_size
from graphprog.passes.selection.only_what_is_read import OnlyWhatIsRead, flops_saved
from graphprog.passes.selection.push_down import Stop
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.fake_tracing import fake_mode_of
from graphprog.utils.torch_modes import plain_modes

_aten = torch.ops.aten
POSITIONS = "positions"


class Running:
    """What runs in place of a graph; it is made when it is first needed.

    Args:
        graph: with the program; it stays as it is, with all its interfaces.
    """

    def __init__(self, graph: Graph) -> None:
        self._whole = graph

    @property
    def graph(self) -> Graph:
        """The graph in which only what is read is computed."""
        return self._moved[0]

    @cached_property
    def _moved(self) -> tuple[Graph, list[Stop], str]:
        with plain_modes():
            try:
                found, stops = OnlyWhatIsRead().moved(self._whole)
            except GraphprogError as error:
                return self._whole, [], str(error)
        return found, stops, ""

    def at(self, number: int) -> Graph:
        """Return the graph with some entries of axis 1 of one output, given as a last input.

        That input is int64 [B, L], the numbers of the entries of each row.

        Args:
            number: of the output.
        """
        if number not in self._at:
            with plain_modes():
                self._at[number] = _reading(self._whole, number)
        return self._at[number]

    @cached_property
    def _at(self) -> dict[int, Graph]:
        return {}

    def notes(self) -> list[str]:
        """Say what is not computed, and why not more."""
        found, stops, refused = self._moved
        if refused:
            return [f"only what is read: not applied, {refused}"]
        before, after = flops_saved(self._whole, found)
        if before == after:
            return []
        lines = [
            f"only what is read is computed in training: {1 - after / before:.1%} of FLOPs saved"
        ]
        for stop in stops:
            name = schema_name(stop.node).removeprefix("aten::") or stop.node.name
            place = " of ".join(filter(None, [name, provenance_of(stop.node)]))
            lines.append(f"  up to {place}: {stop.reason}")
        return lines


def _reading(graph: Graph, number: int) -> Graph:
    """Return a graph that reads some entries of an output, and computes no others."""
    edit = Editor(graph, "read-positions")
    value = edit.code.output_node().args[0][number]  # type: ignore[index]
    assert isinstance(value, fx.Node)
    like = fake_tensor(graph.placeholders[0])
    mode = fake_mode_of(like)
    batch: Any = like.shape[0]
    length = fresh_size(batch, 3)
    with mode:
        places = torch.empty((batch, length), dtype=torch.int64, device=like.device)
    given = edit.add_input(POSITIONS, places)
    output = edit.code.output_node()

    def call(target: torch._ops.OpOverload, *args: object, **kwargs: object) -> fx.Node:
        return edit.call(target, args, output, POSITIONS, kwargs)

    rows = call(_aten.sym_size.int, given, 0)
    counter = call(_aten.arange.default, rows, device=like.device)
    read = call(_aten.index.Tensor, value, [call(_aten.unsqueeze.default, counter, 1), given])
    results = list(output.args[0])  # type: ignore[arg-type]
    results[number] = read
    edit.set_outputs(results)
    edit.drop_sites(key for key in graph.sites if key.startswith("output:"))
    names = (*graph.call_spec.inputs, POSITIONS)
    edit.changes["call_spec"] = CallSpec.positional(names)
    reading = edit.finish()
    try:
        return OnlyWhatIsRead().moved(reading)[0]
    except GraphprogError:
        return reading
