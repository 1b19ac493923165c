"""A graph in two stages: up to the values that are kept, and from there on."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphprog.compiler.running import Running
from graphprog.ir.call_spec import CallSpec
from graphprog.ir.dependence.batch_rows import batch_of
from graphprog.ir.dependence.rule_table import Batch
from graphprog.ir.execution import copy_code
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.ops import schema_name
from graphprog.ir.sizes import is_symbolic
from graphprog.train.reuse.boundary import boundary_of, needed_nodes
from graphprog.utils.tensor_tree import checksum


class Stages:
    """The two stages of a task, over its own weights.

    Attributes:
        names: nodes of the values that are kept.
    """

    def __init__(self, graph: Graph, boundary: Sequence[fx.Node], parts: tuple[Graph, ...]) -> None:
        self.names = [node.name for node in boundary]
        self._graph = graph
        self._parts = parts
        self._running = [Running(part) for part in parts]

    @classmethod
    def of(cls, graph: Graph, boundary: Sequence[fx.Node] | str | None = None) -> Stages | str:
        """Divide a graph, or say why it has no part that is computed once for each sample.

        Args:
            graph: the graph of a task.
            boundary: the values to keep, or why there are none; None chooses them.
        """
        if boundary is None:
            boundary = boundary_of(graph)
        if isinstance(boundary, str):
            return boundary
        results: list[Sequence[Any]] = [graph.output_nodes]
        results += [
            [graph.nodes[one.result], graph.nodes[one.original]]
            for one in graph.insertions
            if one.kind == "output"
        ][:1]
        parts = [_rest(graph, boundary, nodes) for nodes in results]
        if any(part is None for part in parts):
            return "later operations need sizes of the inputs that kept values do not have"
        return cls(graph, boundary, tuple(part for part in parts if part is not None))

    @cached_property
    def key(self) -> tuple[str, ...]:
        """What the values to keep are computed from, besides inputs; for graphs of one source.

        Two tasks with the same key keep the same values.
        """
        lines, nodes = list(self.names), {self._graph.nodes[name] for name in self.names}
        for node in reversed(self._graph.code.nodes):
            if node not in nodes:
                continue
            nodes.update(node.all_input_nodes)
            line = f"{node.name} {node.op} {node.target} {node.args} {node.kwargs}"
            if node.op == "get_attr" and str(node.target).startswith("program."):
                own: torch.Tensor = operator.attrgetter(str(node.target))(self._graph.weights)
                line += f" {own.dtype} {tuple(own.shape)} {checksum([own.detach()])}"
            lines.append(line)
        return tuple(lines)

    def first(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Return the values to keep [B, ...], without gradients."""
        return self._graph.values_of(self.names, inputs)

    def rest(self, values: Sequence[torch.Tensor], read: bool, training: bool) -> tuple[Any, Any]:
        """Return what the task returns, and the values that the alignment reads if asked for."""
        part = self._running[read].graph if training else self._parts[read]
        if read:
            aligned, values_read = part.run(values, training)
            return aligned, values_read
        flat = part.run(values, training)
        return pytree.tree_unflatten(flat, self._graph.out_spec), None


def _rest(graph: Graph, boundary: Sequence[fx.Node], results: Sequence[Any]) -> Graph | None:
    """Return the part after the boundary; None if it needs more than the kept values."""
    code, mapping = copy_code(graph.code)
    batch = batch_of(graph.code)
    assert batch is not None
    code.output_node().args = (
        tuple(mapping[node] if isinstance(node, fx.Node) else node for node in results),
    )
    first = next(iter(code.nodes))
    kept = []
    for number, node in enumerate(boundary):
        with code.inserting_before(first):
            new = code.placeholder(f"kept_{number}")
        new.meta = {"val": fake_tensor(node)}
        mapping[node].replace_all_uses_with(new)
        kept.append(new)
    _read_sizes(code, kept, batch)
    part = dataclasses.replace(
        graph,
        code=code,
        call_spec=CallSpec.positional(tuple(str(one.target) for one in kept)),
        sites={},
        aliases={},
        choices={},
        insertions=(),
        parts={},
    )
    needed = needed_nodes(part)
    for node in reversed(code.nodes):
        if node not in needed and node not in kept:
            code.erase_node(node)
    if set(code.find_nodes(op="placeholder")) != set(kept):
        return None
    return part


def _read_sizes(code: fx.Graph, kept: Sequence[fx.Node], batch: Batch) -> None:
    """Read sizes from kept values instead of from inputs."""
    known = {
        batch.expression(size): (node, axis)
        for node in reversed(kept)
        for axis, size in reversed([*enumerate(fake_tensor(node).shape)])
        if is_symbolic(size)
    }
    for node in list(code.nodes):
        value = node.meta.get("val")
        if is_symbolic(value) and schema_name(node) == "aten::sym_size":
            place = known.get(batch.expression(value))
            if place is not None:
                with code.inserting_before(node):
                    new = code.call_function(torch.ops.aten.sym_size.int, place)
                new.meta = dict(node.meta)
                node.replace_all_uses_with(new)
