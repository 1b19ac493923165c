"""A compiled model that returns values at further interfaces."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import fx
from torch.utils import _pytree as pytree

from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import InterfaceError
from graphprog.ir.execution import copy_code
from graphprog.ir.graph import Graph
from graphprog.passes.attention.expose_attention import exposed
from graphprog.rewriting.effects import require_computed


def with_outputs(task: ReprogrammedModel, names: Sequence[str]) -> ReprogrammedModel:
    """Return the same model and program, with the values at interfaces as its results.

    Args:
        task: the model; it shares its tensors with the result.
        names: outputs of the graph, or interfaces by key or alias; the results have these names.

    Raises:
        InterfaceError: a name is unknown, names several interfaces, is there twice, or comes after
            what the alignment reads.
    """
    if not names or len(set(names)) < len(names) or isinstance(names, str):
        raise InterfaceError(
            f"outputs must be names of interfaces, each once, not {names!r}",
            ['outputs=["logits", "hidden[5]"]'],
        )
    others = [name for name in names if name not in task.graph.outputs]
    graph = exposed(task.graph, others)
    require_computed(graph, {name: graph.interfaces().resolve(name) for name in others})
    code, mapping = copy_code(graph.code)
    code.output_node().args = (tuple(mapping[_node(graph, name)] for name in names),)
    reading = dataclasses.replace(
        graph,
        code=code,
        outputs=tuple(names),
        out_spec=pytree.tree_flatten(tuple(names))[1],
        sites={},
        aliases={},
        choices={},
    )
    found = ReprogrammedModel(task.base, reading, task.spec, task.pipeline, task.seed, task.prompt)
    found.summary = dict(task.summary)
    return found.train(task.training)


def _node(graph: Graph, name: str) -> fx.Node:
    own = dict(zip(graph.outputs, graph.output_nodes, strict=True))
    if isinstance(node := own.get(name), fx.Node):
        return node
    return graph.nodes[graph.interfaces().resolve(name).node]
