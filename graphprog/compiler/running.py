"""The graph that a training step runs: that of the program, without what nobody reads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import fx

from graphprog.errors import GraphprogError
from graphprog.ir.call_spec import CallSpec
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.memory.stages import plan_of
from graphprog.ir.ops import schema_name
from graphprog.ir.parts.cost import example_size
from graphprog.ir.printing import provenance_of
from graphprog.ir.sizes import fresh_size
from graphprog.passes.once_per_step.once_per_step import Once, OncePerStep
from graphprog.passes.selection.only_what_is_read import OnlyWhatIsRead, flops_saved
from graphprog.passes.selection.push_down import Stop
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.fake_tracing import fake_mode_of
from graphprog.utils.torch_modes import plain_modes

_aten = torch.ops.aten
POSITIONS = "positions"
_LEAST = 1e9
"""FLOPs that a split must save for each operation it adds, except on a processor: a GPU waits for
the launch of small operations. Estimated for steps on an H100, the split took up to twice as long
as none at 0.5e9, and half as long at 2e9."""


class Running:
    """What runs in place of a graph; it is made when it is first needed.

    Args:
        graph: with the program; it stays as it is, with all its interfaces.
    """

    def __init__(self, graph: Graph) -> None:
        self._whole = graph

    @property
    def graph(self) -> Graph:
        """The graph in which only what is read is computed, and a prompt once for all rows."""
        return self._once.graph

    def graph_for(self, inputs: Sequence[torch.Tensor]) -> Graph:
        """Return the graph for some inputs: a prompt may come after entries that are all alike."""
        return self._once.graph_for(inputs)

    @cached_property
    def _moved(self) -> tuple[Graph, list[Stop], str]:
        with plain_modes():
            try:
                found, stops = OnlyWhatIsRead().moved(self._whole)
            except GraphprogError as error:
                return self._whole, [], str(error)
        return found, stops, ""

    @cached_property
    def _once(self) -> _Splits:
        return _Splits(self._moved[0])

    def at(self, number: int, inputs: Sequence[torch.Tensor]) -> Graph:
        """Return the graph with some entries of axis 1 of one output, given as a last input.

        That input is int64 [B, L], the numbers of the entries of each row.

        Args:
            number: of the output.
            inputs: the others.
        """
        if number not in self._at:
            with plain_modes():
                self._at[number] = _Splits(_reading(self._whole, number))
        return self._at[number].graph_for(inputs)

    @cached_property
    def _at(self) -> dict[int, _Splits]:
        return {}

    def notes(self) -> list[str]:
        """Say what is not computed, and why not more."""
        found, stops, refused = self._moved
        lines = [f"only what is read: not applied, {refused}"] if refused else []
        if saved := _saved(self._whole, found):
            lines.append(f"only what is read is computed in training: {saved} of FLOPs saved")
            lines += [f"  up to {_place(stop)}: {stop.reason}" for stop in stops]
        lines += self._once.notes()
        weights = self._whole.weights
        trained = {name for name, one in weights.named_parameters() if one.requires_grad}
        plan = plan_of(self._once.graph.code, trained)
        return lines if plan is None else [*lines, f"with memory='low', {plan}"]


class _Splits:
    """A graph with its prompt computed once: always, and where rows begin alike."""

    def __init__(self, graph: Graph) -> None:
        self._whole = graph
        self._failed = ""
        self._always = self._split(0)
        after = self._always.after if self._always.graph is graph else 0
        self._start = after
        self._alike = self._split(after) if after else self._always

    @property
    def graph(self) -> Graph:
        return self._always.graph

    def graph_for(self, inputs: Sequence[torch.Tensor]) -> Graph:
        found = self._split_for(inputs)
        return found if self._is_worth(found, inputs[0]) else self._whole

    def _is_worth(self, split: Graph, rows: torch.Tensor) -> bool:
        if split is self._whole or rows.device.type == "cpu":
            return True
        return (len(rows) - 1) * self._saved_by_row > _LEAST * self._added

    @cached_property
    def _saved_by_row(self) -> float:
        """FLOPs that the split saves for each row after the first."""
        whole, part = flops_saved(self._whole, self._alike.graph)
        rows: int = example_size(fake_tensor(self._whole.placeholders[0]).shape[0])
        return (whole - part) / max(rows - 1, 1)

    @cached_property
    def _added(self) -> int:
        return len(self._alike.graph.code.nodes) - len(self._whole.code.nodes)

    def _split_for(self, inputs: Sequence[torch.Tensor]) -> Graph:
        if self._alike is self._always:
            return self.graph
        names = [str(node.target) for node in self._whole.placeholders]
        given = dict(zip(names, inputs, strict=False))
        for name in self._alike.assumed:
            first = given[name][:, : self._start]
            if not torch.equal(first, first[:1].expand_as(first)):
                return self.graph
        return self._alike.graph

    def _split(self, alike: int) -> Once:
        with plain_modes():
            try:
                return OncePerStep().split(self._whole, alike)
            except GraphprogError as error:
                self._failed = str(error)
                return Once(self._whole, ())

    def notes(self) -> list[str]:
        if self._failed:
            return [f"once per step: not applied, {self._failed}"]
        found, start = self._alike, self._start
        if found.graph is not self._whole:
            where = f" where all rows begin with the same {start} entries," if start else ""
            saved = _saved(self._whole, found.graph) or "nothing"
            first = (
                f"the prompt is computed once a step,{where} with one row: "
                f"{saved} of FLOPs saved at the sizes of capture"
            )
        elif found.stops:
            first = "the prompt is computed for every row:"
        else:
            return []
        return [first, *(f"  at {_place(stop)}: {stop.reason}" for stop in found.stops)]


def _saved(before: Graph, after: Graph) -> str:
    """Return the share of FLOPs that a graph needs less than another; empty for none."""
    whole, part = flops_saved(before, after)
    return f"{1 - part / whole:.1%}" if part < whole else ""


def _place(stop: Stop) -> str:
    name = schema_name(stop.node).removeprefix("aten::") or stop.node.name
    return " of ".join(filter(None, [name, provenance_of(stop.node)]))


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
