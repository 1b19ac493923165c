"""Execution of a graph as a module over its weights, in evaluation or in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphprog.errors import DataError
from graphprog.ir.memory.unpacking import write_unpacking
from graphprog.ir.records import Mode
from graphprog.ir.weights import Weights


def copy_code(code: fx.Graph) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
    """Copy the operations, not the tensors; returns the copy and the map of nodes."""
    copy = fx.Graph()
    mapping: dict[fx.Node, fx.Node] = {}
    for node in code.nodes:
        mapping[node] = copy.node_copy(node, lambda old: mapping[old])
    return copy, mapping


def executable(
    code: fx.Graph,
    weights: Weights,
    outputs: Sequence[fx.Node] | None = None,
    device: torch.device | None = None,
    modes: Sequence[Mode] = (),
    name: str = "Graph",
    remembered: bool = False,
) -> fx.GraphModule:
    """Make a runnable module over shared weights, without dead code.

    Args:
        code: the operations; they are copied.
        weights: the tensors that they read; they are shared.
        outputs: nodes to return instead of the code's outputs.
        device: where the code makes new tensors; None leaves it as captured. The weights are
            wherever they were moved.
        modes: what to compute as in training; updated buffers are returned after the outputs.
        name: of the module's class.
        remembered: let packed weights be computed again for gradients, inside of
            :func:`graphprog.ir.memory.unpacking.recomputing`; not for export.
    """
    copy, mapping = copy_code(code)
    if outputs is not None:
        copy.output_node().args = (tuple(mapping[node] for node in outputs),)
    switch(copy, {node.name: mapping[node] for node in code.nodes} if modes else {}, modes)
    copy.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    write_unpacking(copy, weights, remembered)
    for node in copy.find_nodes(op="call_function", target=torch.ops.aten.view.default):
        node.target = torch.ops.aten.reshape.default  # a rewritten value may have other strides
    if device is not None:
        for node in copy.nodes:
            node.args, node.kwargs = pytree.tree_map_only(
                torch.device, lambda _: device, (node.args, node.kwargs)
            )
    return sharing(weights, copy, name)


def sharing(weights: Weights, code: fx.Graph, name: str) -> fx.GraphModule:
    """Make a module of code that shares the weights; fx itself would copy their tree."""
    runnable = fx.GraphModule(weights, code, class_name=name)
    for child in ("source", "program"):
        if hasattr(runnable, child):
            delattr(runnable, child)
        setattr(runnable, child, getattr(weights, child))
    return runnable


def switch(code: fx.Graph, named: Mapping[str, fx.Node], modes: Sequence[Mode]) -> None:
    """Switch code to training, and return the updated buffers as well.

    Args:
        code: the operations to change.
        named: its nodes, by the names that modes use.
        modes: values that differ in training.
    """
    for mode in modes:
        named[mode.evaluating].replace_all_uses_with(named[mode.training])
    output = code.output_node()
    news = [named[name] for mode in modes for name in mode.updates.values()]
    output.args = ((*output.args[0], *news),)  # type: ignore[misc]


@torch.no_grad()
def write_updates(weights: Weights, modes: Sequence[Mode], values: Sequence[Any]) -> None:
    """Store the new values of the program's buffers after a training step.

    Raises:
        DataError: they are not finite, such as the variance of a single value.
    """
    paths = [path for mode in modes for path in mode.updates]
    for path, value in zip(paths, values, strict=True):
        if not bool(value.isfinite().all()):
            raise DataError(
                f"{path} would no longer be finite after this batch",
                ["use batches of two rows or more: drop_last=True", "check the data"],
            )
    for path, value in zip(paths, values, strict=True):
        weights.get_buffer(path).copy_(value)
