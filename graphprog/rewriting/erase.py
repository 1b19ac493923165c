"""Erasing a program from a graph."""

from __future__ import annotations

import dataclasses

from graphprog.ir.graph import Graph
from graphprog.ir.weights import Weights
from graphprog.rewriting.editor import Editor


def erased(graph: Graph) -> Graph:
    """Return the source graph, operation for operation: insertions are undone, last first."""
    edit = Editor(graph)
    for insertion in reversed(graph.insertions):
        insertion.undo(edit)
    edit.modes.clear()
    edit.erase_dead()
    edit.sites.clear()
    edit.changes["insertions"] = ()
    return dataclasses.replace(edit.finish(), weights=Weights(graph.weights.source))
