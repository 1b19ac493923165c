"""Make a program part of the source, for inference."""

from __future__ import annotations

import dataclasses
import operator

import torch

from graphprog.ir.graph import Graph
from graphprog.ir.weights import Weights, copied_tree, register
from graphprog.passes.base import Pass
from graphprog.rewriting.editor import Editor
from graphprog.spec.registry import spec


@spec("freeze-program")
@dataclasses.dataclass(frozen=True)
class FreezeProgram(Pass):
    """Turn a graph with a program into a source graph with the same operations.

    The program's tensors become frozen tensors of the source, as copies, so that later training
    does not change them; the others stay shared. Nothing can be erased or trained any more.

    Example:
        >>> frozen = gp.passes.FreezeProgram()(task.graph)
        >>> assert torch.equal(frozen(images), task(images)) and not frozen.insertions
    """

    def run(self, graph: Graph) -> Graph:
        """Move every tensor of the program under ``source``."""
        source = copied_tree(graph.weights.source)
        root = "program"
        while hasattr(source, root):
            root += "_"
        edit, moved = Editor(graph, str(self)), set()
        for node in edit.code.find_nodes(op="get_attr"):
            path = str(node.target)
            if not path.startswith("program."):
                continue
            new = f"{root}.{path.removeprefix('program.')}"
            if path not in moved:
                tensor: torch.Tensor = operator.attrgetter(path)(graph.weights)
                register(source, new, tensor.detach().clone())
                moved.add(path)
            node.target = f"source.{new}"
        edit.insertions, edit.modes, edit.parts = [], [], {}
        edit.erase_dead()
        read = {str(node.target) for node in edit.code.find_nodes(op="get_attr")}
        edit.changes["weights"] = Weights(
            copied_tree(source, {path.removeprefix("source.") for path in read})
        )
        return edit.finish()
