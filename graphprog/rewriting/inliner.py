"""Inlining the operations of a program's module into the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from graphprog.errors import InterfaceError, PassError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.records import Mode
from graphprog.rewriting.batch_norm import switching
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.fake_tracing import trace
from graphprog.rewriting.side_effects import warning_of_side_effects


def inline(
    edit: Editor, name: str, module: nn.Module, inputs: Sequence[fx.Node], where: str
) -> tuple[fx.Node, ...]:
    """Trace a module on the fake values of some nodes and insert its operations after them.

    Args:
        edit: the graph being edited.
        name: the module is registered under ``program.<name>``, its path in the metadata.
        module: called with the inputs, positionally; returns a tensor or a tuple of them. It is
            traced in eval mode; what its batch norms do in training becomes modes of the graph.
        inputs: the nodes whose values it reads.
        where: interface key, for messages.

    Returns:
        The nodes of the module's results.

    Raises:
        InterfaceError: a result is not a tensor.
        PassError: the module cannot be traced.
    """
    module = switching(module)
    edit.add_module(name, module)
    return insert(edit, name, module, inputs, where)


def insert(
    edit: Editor, name: str, module: nn.Module, inputs: Sequence[fx.Node], where: str
) -> tuple[fx.Node, ...]:
    """Insert the operations of a module without tensors, or of one that is registered.

    Otherwise as :func:`inline`.
    """
    values = [fake_tensor(node) for node in inputs]
    module.to(values[0].device).eval()
    with warning_of_side_effects(module, where):
        traced, tensors = trace(module, values, where)
    arguments = iter(traced.graph.find_nodes(op="placeholder"))
    mapping: dict[fx.Node, fx.Node] = {next(arguments): node for node in inputs}
    last = _latest(edit.code, inputs)
    for (path, _), old in zip(tensors.items(), arguments, strict=True):
        if old.users:
            with edit.code.inserting_after(last):
                last = edit.code.create_node("get_attr", f"program.{name}.{path}")
            last.meta["val"] = fake_tensor(old)
            mapping[old] = last
    stack = {f"program.{name}": (f"program.{name}", type(module).__qualname__)}
    for old in traced.graph.nodes:
        if old.op == "get_attr":
            raise PassError(
                f"{where}: {type(module).__name__}.forward makes a constant tensor",
                ["make it once in __init__: self.register_buffer(name, tensor)"],
            )
        if old.op != "call_function":
            continue
        with edit.code.inserting_after(last):
            last = edit.code.node_copy(old, lambda node: mapping[node])
        last.meta = {
            "val": fake_tensor(old),
            "nn_module_stack": dict(stack),
            "graphprog": f"program.{name}",
            "made_by": edit.made_by,
        }
        mapping[old] = last
    returned: Any = traced.graph.output_node().args[0]
    for path, (evaluating, training, updates) in returned[1].items():
        prefix = ".".join(filter(None, ("program", name, path)))
        news = {f"{prefix}.{tensor}": mapping[node].name for tensor, node in updates.items()}
        edit.modes.append(Mode(mapping[evaluating].name, mapping[training].name, news))
    results = returned[0] if isinstance(returned[0], list | tuple) else (returned[0],)
    nodes = [mapping.get(node) if isinstance(node, fx.Node) else None for node in results]
    if not all(node and isinstance(fake_tensor(node), torch.Tensor) for node in nodes):
        raise InterfaceError(
            f"{where}: {type(module).__name__}.forward returns something that is not a tensor",
            ["return the tensor that replaces the first argument"],
        )
    own = {"made_by": edit.made_by, "graphprog": f"program.{name}"}
    return tuple(_fresh(edit, node, inputs, own) for node in nodes if node)


def _fresh(edit: Editor, node: fx.Node, inputs: Sequence[fx.Node], meta: dict[str, Any]) -> fx.Node:
    """Return a result as a new node, distinct from the input that it is."""
    if node not in inputs and node.op != "get_attr":
        return node
    with edit.code.inserting_after(_latest(edit.code, [node])):
        copy = edit.code.call_function(torch.ops.aten.alias.default, (node,))
    copy.meta = {"val": fake_tensor(node), **meta}
    return copy


def _latest(code: fx.Graph, nodes: Sequence[fx.Node]) -> fx.Node:
    """Return the last of some nodes, or of the placeholders: no code may precede these."""
    latest = max(nodes)
    if latest.op == "placeholder":
        latest = code.find_nodes(op="placeholder")[-1]
    return latest
