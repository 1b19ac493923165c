"""Which values to keep, so that training goes on from there: a minimum cut on bytes per sample."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import fx

from graphprog.ir.dependence.batch_rows import batch_of
from graphprog.ir.dependence.classes import MATES, SAMPLES, WEIGHTS
from graphprog.ir.dependence.rule_table import Batch
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.parts.cost import example_size
from graphprog.ir.parts.cut import bytes_of


def boundary_of(graph: Graph) -> list[fx.Node] | str:
    """Choose the values to keep of each sample, or say why none are kept.

    They depend on samples and the source, not on the program or on other rows. Everything of
    that kind that costs products is computed before them, once; of such sets of values they are
    one with the fewest bytes per sample.
    """
    found = graph.explain()
    batch = batch_of(graph.code)
    if batch is None:
        return "not every input has rows on axis 0"
    needed = needed_nodes(graph)
    fixed = [
        node
        for node, kind in found.classes.items()
        if node in needed and SAMPLES in kind and kind <= {WEIGHTS, SAMPLES} and _is_tensor(node)
    ]
    costly = [node for node in fixed if found.flops.get(node.name)]
    if not costly:
        mixing = any(MATES in kind for kind in found.classes.values()) and found.mixing()
        return (
            f"rows may mix: {mixing[0]}" if mixing else "the program acts before the first product"
        )
    sizes = {node: _bytes_per_row(node, found.axes, batch) for node in fixed}
    return _cut(sizes, costly, _read_outside(graph, set(fixed), needed))


def needed_nodes(graph: Graph) -> set[fx.Node]:
    """Return what the outputs of a graph are computed from, in evaluation and in training."""
    modes = {name for mode in graph.modes for name in mode.nodes}
    needed: set[fx.Node] = set()
    for node in reversed(graph.code.nodes):
        if node.op == "output" or node in needed or node.name in modes:
            needed.update(node.all_input_nodes)
            needed.add(node)
    return needed


def _is_tensor(node: fx.Node) -> bool:
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(one, torch.Tensor) for one in values)


def _read_outside(
    graph: Graph, fixed: Collection[fx.Node], needed: Collection[fx.Node]
) -> set[fx.Node]:
    """Return the fixed values that something else reads: the program, an output, an alignment."""
    aligned = {graph.nodes[one.original] for one in graph.insertions if one.kind == "output"}
    return {
        node
        for node in fixed
        if node in aligned or any(user in needed and user not in fixed for user in node.users)
    }


def _bytes_per_row(node: fx.Node, axes: Mapping[fx.Node, Any], batch: Batch) -> int | None:
    """Return the bytes of a sample; None if the rows are not the entries of axis 0."""
    value = node.meta["val"]
    if not isinstance(value, torch.Tensor) or axes[node] != 0:
        return None
    if batch.per_row(fake_tensor(node).shape[0]) != 1:
        return None
    rows = int(example_size(value.shape[0]))
    return bytes_of(value) // rows if rows else None


def _cut(
    sizes: Mapping[fx.Node, int | None],
    costly: Collection[fx.Node],
    ends: Collection[fx.Node],
) -> list[fx.Node] | str:
    import networkx as nx

    flow = nx.DiGraph()
    for node, size in sizes.items():
        flow.add_edge((node, "in"), (node, "out"), **({} if size is None else {"capacity": size}))
        if node in ends:
            flow.add_edge((node, "out"), "training")
        if node.op == "placeholder" or node in costly:
            flow.add_edge("samples", (node, "in"))
        for part in node.all_input_nodes:
            if part in sizes:
                flow.add_edge((part, "out"), (node, "in"))
    if "training" not in flow:
        return "nothing that depends on samples reaches the program"
    try:
        _, (before, _) = nx.minimum_cut(flow, "samples", "training")
    except nx.NetworkXUnbounded:
        return "values that only samples decide do not have their rows on axis 0"
    return [node for node in sizes if (node, "in") in before and (node, "out") not in before]
