"""Canonical text of a graph: one line per node, no addresses, symbols renamed."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import sympy
import torch
from torch import fx

from graphprog.ir.interface import dtype_text
from graphprog.ir.symbols import size_text

_COLUMN = 96


class Printable(Protocol):
    """The fields of a graph that are printed."""

    @property
    def name(self) -> str:
        """Name of the model."""

    @property
    def code(self) -> fx.Graph:
        """The operations."""

    @property
    def symbols(self) -> Mapping[sympy.Symbol, sympy.Symbol]:
        """Symbolic sizes to their letters."""

    @property
    def placeholders(self) -> Sequence[fx.Node]:
        """The inputs."""

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the outputs."""

    @property
    def output_nodes(self) -> Sequence[Any]:
        """The outputs: nodes or constants."""


def graph_text(graph: Printable, provenance: bool = True) -> str:
    """Print one line per node, with weights by name and values numbered in order.

    Values of a program are numbered separately, under the name of its part, so that the source
    prints the same with and without it.

    Args:
        graph: the graph to print.
        provenance: also print the name of the model, and the module or insertion that a node comes
            from. Fingerprints leave this out, because it may not be in a file.
    """
    names = value_names(graph)
    lines = [signature(graph, graph.name if provenance else "")]
    lines += [
        node_line(graph, node, names, provenance)
        for node in graph.code.nodes
        if node.op == "call_function"
    ]
    return "\n".join([*lines, returned(graph, names)])


def value_names(graph: Printable) -> dict[fx.Node, str]:
    """Return the name of every node in the text."""
    names: dict[fx.Node, str] = {}
    numbers: defaultdict[str, itertools.count[int]] = defaultdict(itertools.count)
    for node in graph.code.nodes:
        if node.op == "placeholder":
            names[node] = f"%{node.target}"
        elif node.op == "get_attr":
            names[node] = str(node.target).removeprefix("source.")
        elif node.op == "call_function":
            part = part_of(node)
            number = next(numbers[part])
            names[node] = f"%{part}.{number}" if part else f"%{number}"
    return names


def part_of(node: fx.Node) -> str:
    """Return the part of a program that a node belongs to; empty for the source model."""
    return str(node.meta.get("graphprog", "")).removeprefix("program.")


def returned(graph: Printable, names: Mapping[fx.Node, str]) -> str:
    """Return the last line: the results."""
    return f"  return {', '.join(_value(item, names, graph) for item in graph.output_nodes)}"


def signature(graph: Printable, name: str) -> str:
    """Return the first line: inputs and outputs with their types."""
    inputs = ", ".join(
        f"{node.target}: {value_type(node.meta.get('val'), graph)}" for node in graph.placeholders
    )
    outputs = ", ".join(
        f"{key}: {value_type(node.meta.get('val'), graph) if isinstance(node, fx.Node) else node}"
        for key, node in zip(graph.outputs, graph.output_nodes, strict=True)
    )
    return f"graph {name}({inputs}) -> {outputs}"


def node_line(
    graph: Printable, node: fx.Node, names: Mapping[fx.Node, str], provenance: bool = True
) -> str:
    """Return the line of one node, with its type and provenance."""
    text = f"  {names[node]} = {call_text(graph, node, names)}"
    text = f"{text}  {value_type(node.meta.get('val'), graph)}"
    where = provenance_of(node)
    if provenance and where:
        text = f"{text.ljust(_COLUMN)}  @{where}"
    return text


def call_text(graph: Printable, node: fx.Node, names: Mapping[fx.Node, str]) -> str:
    """Return the operation and its arguments."""
    arguments = [_value(item, names, graph) for item in node.args]
    arguments += [f"{key}={_value(item, names, graph)}" for key, item in node.kwargs.items()]
    return f"{operator_name(node)}({', '.join(arguments)})"


def provenance_of(node: fx.Node) -> str:
    """Return the part of a program that a node belongs to, or the path of its module."""
    return str(node.meta.get("graphprog", "")) or module_path(node)


def operator_name(node: fx.Node) -> str:
    """Return the name of the operation without namespace, with an overload other than default."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        name = target._schema.name.removeprefix("aten::")
        overload = target._overloadname
        return name if overload in ("default", "") else f"{name}.{overload}"
    return getattr(target, "__name__", str(target))


def module_path(node: fx.Node) -> str:
    """Return the path of the innermost module that called the node, or an empty string."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = clean_path(stack[-1][0]) if stack else ""
    return "" if path.endswith("metadata_hook") else path


def clean_path(path: str) -> str:
    """Remove the prefix that tracing adds to a module path."""
    for prefix in ("L['self']", "L__self__"):
        path = path.removeprefix(prefix)
    return path.strip(".")


def value_type(value: Any, graph: Printable) -> str:
    """Return a type such as ``f32[B,10]``; several results are in parentheses."""
    if isinstance(value, torch.Tensor):
        sizes = ",".join(str(size_text(size, graph.symbols)) for size in value.shape)
        return f"{dtype_text(value.dtype)}[{sizes}]"
    if isinstance(value, list | tuple):
        return "(" + ", ".join(value_type(item, graph) for item in value) + ")"
    if isinstance(value, torch.SymInt | int) and not isinstance(value, bool):
        return f"size {size_text(value, graph.symbols)}"
    return "" if value is None else type(value).__name__


def _value(item: Any, names: Mapping[fx.Node, str], graph: Printable) -> str:
    if isinstance(item, fx.Node):
        return names[item]
    if isinstance(item, list | tuple):
        return "[" + ", ".join(_value(part, names, graph) for part in item) + "]"
    if isinstance(item, slice):
        parts = (item.start, item.stop, item.step)
        return ":".join("" if part is None else _value(part, names, graph) for part in parts)
    if isinstance(item, torch.dtype):
        return dtype_text(item)
    if isinstance(item, torch.SymInt):
        return str(size_text(item, graph.symbols))
    if isinstance(item, float):
        return repr(item)
    return str(item)
