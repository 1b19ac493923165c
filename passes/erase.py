"""Take a program out of a graph again: the proof that a rewriting changed nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

from graphprog.ir.graph import Graph
from graphprog.ir.weights import Weights
from graphprog.passes.base import Pass
from graphprog.rewriting.edges import set_leaf
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.toposort import arrange
from graphprog.spec.registry import spec


@spec("erase-program")
@dataclasses.dataclass(frozen=True)
class EraseProgram(Pass):
    """Undo every insertion, last first; the result is the source graph, operation for operation."""

    def run(self, graph: Graph) -> Graph:
        """Restore edges, inputs and outputs; what only the program needed is dead and goes."""
        edit = Editor(graph, str(self))
        restored: dict[str, Any] = {}
        for insertion in reversed(graph.insertions):
            result = edit.node(insertion.result)
            if insertion.kind == "value":
                result.replace_all_uses_with(edit.node(insertion.original))
                arrange(edit.code, edit.alive(insertion.old or ()))
            elif insertion.kind == "axis":
                changes, values, order = insertion.old
                _shorten(edit, changes, values)
                result.replace_all_uses_with(edit.node(insertion.original))
                arrange(edit.code, edit.alive(order or ()))
            elif insertion.kind == "memory":
                for call in insertion.old:
                    call.restore(edit)
            elif insertion.kind == "input":
                current = next(
                    node
                    for node in edit.code.find_nodes(op="placeholder")
                    if node.target == insertion.original
                )
                old = edit.replace_placeholder(current, insertion.old)
                result.replace_all_uses_with(old)
                edit.erase_dead()
                edit.code.erase_node(current)
            elif insertion.kind == "bound":
                places, values, call_spec = insertion.old
                _ask_again(edit, places, values)
                restored["call_spec"] = call_spec
            else:
                nodes, names, tree = insertion.old
                edit.set_outputs(
                    [edit.node(item) if isinstance(item, str) else item for item in nodes]
                )
                restored |= {"outputs": names, "out_spec": tree}
        edit.modes.clear()
        edit.erase_dead()
        edit.sites.clear()
        edit.changes |= restored | {"insertions": ()}
        erased = edit.finish()
        return dataclasses.replace(erased, weights=Weights(graph.weights.source))


def _shorten(
    edit: Editor, changes: tuple[tuple[str, int, Any], ...], values: dict[str, Any]
) -> None:
    """Give what lies behind an inserted piece of an axis its sources and lengths back."""
    for name, slot, old in reversed(changes):
        set_leaf(edit.node(name), slot, edit.node(old) if isinstance(old, str) else old)
    for name, value in values.items():
        edit.node(name).meta["val"] = value


def _ask_again(
    edit: Editor, places: tuple[tuple[int, str, str, Any, str], ...], values: dict[str, Any]
) -> None:
    """Make inputs again of the constants in their places."""
    for number, name, old, value, constant in places:
        inputs = edit.code.find_nodes(op="placeholder")
        place = edit.code.inserting_before(inputs[number]) if number < len(inputs) else None
        with place or edit.code.inserting_after(inputs[-1]):
            node = edit.code.placeholder(name)
        node.meta["val"] = value
        edit.substitute(edit.node(constant), node)
        edit.stand_in(old, node)
    for name, value in values.items():
        edit.node(name).meta["val"] = value
