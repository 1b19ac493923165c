"""Lifting an exported program into a flat, functional graph over shared weights."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from graphprog.errors import CaptureError
from graphprog.ir.call_spec import CallSpec
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.symbols import name_symbols
from graphprog.ir.weights import SourceTensors, Weights, register
from graphprog.passes.normalize.cleanup import (
    DropAsserts,
    DropCopies,
    DropDeadCode,
    DropDropout,
    ResolveTaps,
)
from graphprog.passes.normalize.functionalize import Functionalize, can_functionalize
from graphprog.passes.normalize.regions import InlineRegions, enter_region
from graphprog.passes.pipeline import Pipeline

NORMALIZE = Pipeline(
    (
        InlineRegions(),
        DropAsserts(),
        Functionalize(),
        DropCopies(),
        ResolveTaps(),
        DropDropout(),
        DropDeadCode(),
    )
)
"""The passes that every captured graph goes through."""


def lift(program: ExportedProgram, name: str, axes: Mapping[str, Mapping[int, str]]) -> Graph:
    """Make a Graph of an exported program.

    Args:
        program: what ``torch.export`` returned; exported in eval mode.
        name: name of the model.
        axes: names of the dynamic axes of each input, for the letters of symbolic sizes.

    Raises:
        CaptureError: the program writes to its weights or inputs, or was exported in train mode.
    """
    _refuse_side_effects(program)
    module = program.module(check_guards=False)
    if not can_functionalize(module.graph):
        module = program.run_decompositions({}).module(check_guards=False)
    assert module._out_spec is not None
    code = fx.Graph()
    constants: dict[str, Any] = {}
    mapping: dict[fx.Node, Any] = {}
    for node in _inputs_first(module.graph):
        if node.op == "output":
            code.output(tuple(mapping.get(item, item) for item in _flat_output(node)))
        elif node.op == "placeholder" and not isinstance(node.meta.get("val"), torch.Tensor):
            constants[str(node.target)] = mapping[node] = node.meta.get("val")
        else:
            mapping[node] = code.node_copy(node, lambda old: mapping[old])
            if node.op == "get_attr":
                enter_region(module, mapping[node], "source")
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    graph = Graph(
        name=name,
        code=code,
        weights=Weights(SourceTensors()),
        call_spec=CallSpec(
            module._in_spec,
            tuple(None if str(n.target) in constants else str(n.target) for n in inputs),
            tuple(constants.get(str(node.target)) for node in inputs),
        ),
        out_spec=module._out_spec,
        outputs=_output_names(module._out_spec),
        sites={},
        symbols=name_symbols(
            [
                (tuple(fake_tensor(node).shape), axes.get(str(node.target), {}))
                for node in code.find_nodes(op="placeholder")
            ]
        ),
    )
    graph = NORMALIZE(graph)
    _share_weights(module, graph)
    return graph


def _refuse_side_effects(program: ExportedProgram) -> None:
    signature = program.graph_signature
    if signature.buffers_to_mutate:
        names = ", ".join(sorted(set(signature.buffers_to_mutate.values()))[:4])
        raise CaptureError(
            f"the model writes to its buffers ({names}): it was exported in train mode, or forward "
            "changes its state",
            ["call model.eval() before torch.export.export", "keep state outside of forward"],
        )


def _inputs_first(graph: fx.Graph) -> list[fx.Node]:
    """Return the placeholders, then the weights, then all other nodes in order."""
    rank = {"placeholder": 0, "get_attr": 1}
    return sorted(graph.nodes, key=lambda node: rank.get(node.op, 2))


def _flat_output(node: fx.Node) -> list[Any]:
    returned = node.args[0]
    return list(returned) if isinstance(returned, list | tuple) else [returned]


def _share_weights(module: fx.GraphModule, graph: Graph) -> None:
    """Register the tensors that the graph reads under ``source``; their memory is shared."""
    shared: dict[int, nn.Parameter] = {}
    for node in graph.code.find_nodes(op="get_attr"):
        path = str(node.target).removeprefix("source.")
        value = operator.attrgetter(path)(module)
        own = value.detach()
        if isinstance(value, nn.Parameter):
            # a new Parameter over the same memory: freezing it does not change the user's model;
            # tied weights stay one object
            own = shared.setdefault(id(value), nn.Parameter(own, requires_grad=False))
        register(graph.weights.source, path, own)


def _output_names(spec: pytree.TreeSpec) -> tuple[str, ...]:
    """Return names from the keys of the result; a single unnamed output is ``logits``."""
    marks = list(range(spec.num_leaves))
    leaves, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(marks, spec))
    names = [
        ".".join(
            str(getattr(step, "key", getattr(step, "idx", getattr(step, "name", step))))
            for step in path
        )
        for path, _ in leaves
    ]
    return ("logits",) if len(names) == 1 and names[0] in ("", "0") else tuple(names)
