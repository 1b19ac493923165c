"""Binding inputs: constants replace placeholders, and sizes become numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import fx

from graphprog.errors import InterfaceError, PassError
from graphprog.ir.call_spec import CallSpec
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph, Insertion
from graphprog.ir.inputs import check_type, inputs_of
from graphprog.ir.printing import module_path, operator_name
from graphprog.manipulations.inputs.constant_inputs import ConstantInputs, Held
from graphprog.passes.base import Pass
from graphprog.passes.insert.insert import unique_label
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.fake_execution import Kernels
from graphprog.rewriting.fake_tracing import fake_mode_of, running
from graphprog.spec.registry import spec

Place = tuple[int, str, str, Any, str]
"""Index, name, node and fake value of an input, and the node that replaces it."""


@spec("bind-inputs")
@dataclasses.dataclass(frozen=True)
class BindInputs(Pass):
    """Replace inputs of the model by constant tensors; the others stay inputs.

    Dynamic lengths of those inputs become numbers.

    Attributes:
        op: the manipulation with the constant tensors.

    Example:
        >>> bound = gp.passes.BindInputs(gp.ConstantInputs({"ids": ids}))(pairs)
        >>> assert torch.equal(bound(pixels), pairs(ids, pixels))
    """

    op: ConstantInputs

    after = ("insert", "replace-input", "replace-tokens", "extend-axis", "extend-kv")

    def requires(self, graph: Graph) -> None:
        """Check that the inputs exist, that the tensors match them, and that one input is left.

        Raises:
            InterfaceError: there is no such input, or no other one.
            PassError: another input shares an axis with one of them.
            DataError: wrong shape or dtype.
        """
        specs = {item.name: item for item in inputs_of(graph)}
        given = dict(self.op.inputs)
        if unknown := [name for name in given if name not in specs]:
            raise InterfaceError(
                f"{self.op.kind}: the graph has no input {', '.join(unknown)}; it takes "
                f"{', '.join(specs)}",
                ["capture the model with that argument", "leave it out of what is bound"],
            )
        for name, value in given.items():
            check_type(specs[name], value)
        if len(given) == len(specs):
            raise InterfaceError(f"{self.op.kind}: no input is left, and a task needs one")
        fixed = {size for name in given for size in specs[name].shape if isinstance(size, str)}
        for name, item in specs.items():
            if name not in given and (shared := fixed.intersection(map(str, item.shape))):
                raise PassError(
                    f"{self.op.kind}: input {name!r} has the axis {', '.join(sorted(shared))} of "
                    f"one that is bound: {item}",
                    ["bind it too", "name the axes apart in dynamic_axes= at capture"],
                )

    def run(self, graph: Graph) -> Graph:
        """Replace the inputs by the constants, and recompute dependent fake values."""
        edit = Editor(graph, str(self))
        label = unique_label(graph, self.op.label)
        given = dict(self.op.inputs)
        module = self.op.held().to(fake_tensor(graph.placeholders[0]).device)
        edit.add_module(label, module)
        places: list[Place] = []
        for number, old in enumerate(graph.placeholders):
            name = str(old.target)
            if name in given:
                node = _constant(edit, edit.node(old.name), label, module)
                places.append((number, name, old.name, fake_tensor(old), node.name))
        keys = [f"input:{name}" for _, name, *_ in places]
        edit.drop_sites([key for key in keys if key in edit.sites])
        made = {place[-1] for place in places}
        constants = [node for node in edit.code.find_nodes(op="get_attr") if node.name in made]
        values = _run_again(edit, constants)
        inputs = tuple(str(node.target) for node in edit.code.find_nodes(op="placeholder"))
        edit.changes["call_spec"] = CallSpec.positional(inputs)
        undo = UnbindInputs(tuple(places), values, graph.call_spec)
        _, first, *_, result = places[0]
        at = ", ".join(keys)
        edit.record(Insertion("bound", label, at, result, first, undo, self.op.label, values))
        return edit.finish()


@dataclasses.dataclass(frozen=True)
class UnbindInputs:
    """Undo of a binding: the constants become inputs again.

    Attributes:
        places: names and positions of the inputs.
        values: original fake values of all dependent nodes, by node.
        call_spec: the original call spec of the graph.
    """

    places: tuple[Place, ...]
    values: Mapping[str, Any]
    call_spec: CallSpec

    def __call__(self, edit: Editor) -> None:
        """Replace the constants by placeholders."""
        for number, name, old, value, constant in self.places:
            inputs = edit.code.find_nodes(op="placeholder")
            place = edit.code.inserting_before(inputs[number]) if number < len(inputs) else None
            with place or edit.code.inserting_after(inputs[-1]):
                node = edit.code.placeholder(name)
            node.meta["val"] = value
            edit.substitute(edit.node(constant), node)
            edit.stand_in(old, node)
        for name, value in self.values.items():
            edit.node(name).meta["val"] = value
        edit.changes["call_spec"] = self.call_spec


def _constant(edit: Editor, old: fx.Node, label: str, module: Held) -> fx.Node:
    """Read a tensor of the program instead of an input."""
    path = module.path(str(old.target))
    with edit.code.inserting_after(edit.code.find_nodes(op="placeholder")[-1]):
        node = edit.code.create_node("get_attr", f"program.{label}.{path}")
    mode = fake_mode_of(fake_tensor(old))
    value = mode.from_tensor(module.get_buffer(path), static_shapes=True)
    node.meta = {"val": value, **edit.provenance(label)}
    edit.substitute(old, node)
    return node


def _run_again(edit: Editor, constants: list[fx.Node]) -> dict[str, Any]:
    """Recompute the fake values that depend on the constants; return the old ones by node.

    Raises:
        PassError: an operation does not run at these lengths.
    """
    kernels, reached, before = Kernels(), set(constants), {}
    with running(fake_mode_of(fake_tensor(constants[0]))):
        for node in edit.code.nodes:
            if node.op != "call_function" or reached.isdisjoint(node.all_input_nodes):
                continue
            reached.add(node)
            before[node.name] = node.meta.get("val")
            try:
                node.meta = {**node.meta, "val": kernels.run(node)}
            except Exception as error:  # operations raise exceptions of every kind
                where = f" in {path}" if (path := module_path(node)) else ""
                raise PassError(
                    f"constant-inputs: {operator_name(node)}{where} does not run on inputs of "
                    f"these lengths: {str(error).strip()[:300]}",
                    ["shorter texts: a model has a number of positions", "fewer inserted tokens"],
                ) from error
    return before
