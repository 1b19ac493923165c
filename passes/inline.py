"""Inlining: the operations of a program's module become part of the graph."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx, nn

from graphprog.errors import PassError
from graphprog.passes.editor import Editor
from graphprog.passes.trace import trace


def inline(
    edit: Editor, name: str, module: nn.Module, inputs: Sequence[fx.Node], where: str
) -> tuple[fx.Node, ...]:
    """Trace a module on the fake values of some nodes and put its operations behind them.

    Args:
        edit: the graph being edited.
        name: the module is hung under ``program.<name>`` and keeps this path in metadata.
        module: called with the inputs, positionally; returns a tensor or a tuple of them.
        inputs: nodes whose values it reads.
        where: interface key, for messages.

    Returns:
        The nodes of the module's results.
    """
    edit.add_module(name, module)
    values = [node.meta["val"] for node in inputs]
    module.to(values[0].device)
    traced, tensors = trace(module, values, where)
    arguments = iter(traced.graph.find_nodes(op="placeholder"))
    mapping: dict[fx.Node, fx.Node] = {next(arguments): node for node in inputs}
    last = _latest(edit.code, inputs)
    for (path, _), old in zip(tensors.items(), arguments, strict=True):
        if old.users:
            with edit.code.inserting_after(last):
                last = edit.code.create_node("get_attr", f"program.{name}.{path}")
            last.meta["val"] = old.meta["val"]
            mapping[old] = last
    stack = {f"program.{name}": (f"program.{name}", type(module).__qualname__)}
    for old in traced.graph.nodes:
        if old.op == "get_attr":
            raise PassError(
                f"{where}: {type(module).__name__}.forward makes a constant tensor",
                ["make it once in __init__ and register it as a buffer"],
            )
        if old.op != "call_function":
            continue
        with edit.code.inserting_after(last):
            last = edit.code.node_copy(old, lambda node: mapping[node])
        last.meta = {
            "val": old.meta["val"],
            "nn_module_stack": dict(stack),
            "graphprog": f"program.{name}",
            "made_by": edit.made_by,
        }
        mapping[old] = last
    returned = traced.graph.output_node().args[0]
    results = returned if isinstance(returned, list | tuple) else (returned,)
    return tuple(mapping[node] for node in results)  # type: ignore[index]


def _latest(code: fx.Graph, nodes: Sequence[fx.Node]) -> fx.Node:
    """The last of some nodes; code may not stand between placeholders."""
    latest = max(nodes)
    if latest.op == "placeholder":
        latest = code.find_nodes(op="placeholder")[-1]
    return latest
