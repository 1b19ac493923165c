"""Editing a source whose constants are read, computed, and replaced by new ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from graphprog.analysis.constants import constants_of
from graphprog.errors import PassError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.memory.packed import tensor_at
from graphprog.ir.weights import Weights, copied_tree, register
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.fake_tracing import fake_mode_of


def require_source(kind: str, graph: Graph) -> None:
    """Refuse a graph that has a program in it.

    Raises:
        PassError: it has.
    """
    if graph.insertions:
        raise PassError(
            f"{kind} changes the source, and this graph has a program in it",
            [
                "change the captured graph first, then compile the program into the result",
                "gp.freeze(task) makes the program a part of the source, for inference",
            ],
        )


class SourceEdit:
    """An edit that adds frozen tensors to a source; those that nothing reads are dropped.

    Attributes:
        edit: the editor of the code.
    """

    def __init__(self, graph: Graph, made_by: str, root: str) -> None:
        self.edit = Editor(graph, made_by)
        self._graph = graph
        self._source = copied_tree(graph.weights.source)
        self._constants = {self.edit.node(node.name) for node in constants_of(graph)}
        self._known: dict[fx.Node, torch.Tensor] = {}
        self._count = 0
        while hasattr(self._source, root):
            root += "_"
        self._root = root

    def is_constant(self, node: Any) -> bool:
        """Whether an argument is a value that is the same in every run."""
        return isinstance(node, fx.Node) and node in self._constants

    def value(self, node: Any) -> torch.Tensor | None:
        """Compute a constant; None if the argument varies."""
        if not self.is_constant(node):
            return None
        if node not in self._known:
            if node.op == "get_attr":
                found: Any = tensor_at(self._graph.weights, str(node.target))
            else:
                target: Any = node.target
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.value)
                with torch.no_grad():
                    found = target(*args, **kwargs)
            self._known[node] = found
        return self._known[node]

    def store(self, value: torch.Tensor, before: fx.Node, name: str = "value") -> fx.Node:
        """Add a frozen tensor to the source, and read it before a node."""
        value = value.detach()
        path = f"{self._root}.{name}_{self._count}"
        self._count += 1
        register(self._source, path, value)
        with self.edit.code.inserting_before(before):
            node = self.edit.code.create_node("get_attr", f"source.{path}")
        like = fake_tensor(self.edit.code.find_nodes(op="placeholder")[0])
        node.meta["val"] = fake_mode_of(like).from_tensor(value, static_shapes=True)
        self._constants.add(node)
        self._known[node] = value
        return node

    def call(self, target: Any, args: tuple[Any, ...], before: fx.Node, like: fx.Node) -> fx.Node:
        """Insert an operation of the source, with the place in the model of another one."""
        node = self.edit.call(target, args, before, "")
        del node.meta["graphprog"]
        kept = ("graphprog", "nn_module_stack", "stack_trace")
        node.meta.update({key: like.meta[key] for key in kept if key in like.meta})
        return node

    def finish(self) -> Graph:
        """Return the edited graph, with its program if it has one."""
        self.edit.erase_dead()
        read = {str(node.target) for node in self.edit.code.find_nodes(op="get_attr")}
        used = {path.removeprefix("source.") for path in read}
        weights = Weights(copied_tree(self._source, used), self._graph.weights.program)
        self.edit.changes["weights"] = weights
        return self.edit.finish()
