"""Erasing a program from a graph, the proof that a rewriting changed nothing else."""

from __future__ import annotations

import dataclasses

from graphprog.ir.graph import Graph
from graphprog.passes.base import Pass
from graphprog.rewriting.erase import erased
from graphprog.spec.registry import spec


@spec("erase-program")
@dataclasses.dataclass(frozen=True)
class EraseProgram(Pass):
    """Undo every insertion, last first; the result is the source graph, operation for operation.

    Example:
        >>> changed = gp.passes.Insert(gp.Additive())(graph)
        >>> assert str(gp.passes.EraseProgram()(changed)) == str(graph)
    """

    def run(self, graph: Graph) -> Graph:
        """Restore edges, inputs and outputs, and remove what only the program needed."""
        return erased(graph)
