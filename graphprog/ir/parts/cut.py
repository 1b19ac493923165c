"""Cuts: the part of a graph between given values, as a graph of its own."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Container, Iterable, Mapping, Sequence

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphprog.errors import InterfaceError
from graphprog.ir.call_spec import CallSpec
from graphprog.ir.fake import fake_tensor, fake_value
from graphprog.ir.interface import Edge, Interface
from graphprog.ir.memory.packed import held_at
from graphprog.ir.ops import ancestors, values_of
from graphprog.ir.parts.cost import example_size
from graphprog.ir.records import Site
from graphprog.ir.sizes import expression, is_symbolic
from graphprog.ir.weights import SourceTensors, Weights, register


@dataclasses.dataclass(frozen=True)
class Cut:
    """The code of a part, and what else a graph of it has.

    Attributes:
        code: the operations of the part.
        weights: the tensors that they read; memory is shared. Tensors of a program are copied,
            and belong to the source of the part.
        call_spec: the inputs, by position.
        out_spec: one tensor, or a tuple.
        outputs: names of the outputs.
        sites: the interfaces that lie in the part, and those of its inputs and outputs.
    """

    code: fx.Graph
    weights: Weights
    call_spec: CallSpec
    out_spec: pytree.TreeSpec
    outputs: tuple[str, ...]
    sites: dict[str, Site]

    def aliases(self, known: Mapping[str, str]) -> dict[str, str]:
        """Return the graph's aliases that lie in the part, and those of its input and output."""
        found = {alias: key for alias, key in known.items() if key in self.sites}
        if len(self.call_spec.inputs) == 1:
            found["input"] = f"input:{self.call_spec.inputs[0]}"
        if len(self.outputs) == 1:
            found["logits"] = f"output:{self.outputs[0]}"
        return found


def input_name(name: str) -> str:
    """Return the name of the input or output at an interface: ``hidden[3]`` is ``hidden_3``."""
    plain = re.sub(r"\W+", "_", name.removeprefix("input:").removeprefix("output:")).strip("_")
    return f"_{plain}" if plain[:1].isdigit() else plain


def cut(
    code: fx.Graph,
    weights: Weights,
    sites: Mapping[str, Site],
    starts: Mapping[str, Interface],
    ends: Mapping[str, Interface],
    complete: bool = False,
) -> Cut:
    """Return the part of a graph from given values to others.

    Args:
        code: the operations of the graph.
        weights: the tensors that they read.
        sites: the interfaces of the graph.
        starts: the values to start from, by name.
        ends: the values to return, by name.
        complete: whether the starts are all activations that the part reads; everything else is
            then computed in it.

    Raises:
        InterfaceError: no end depends on a start, or an end is a start.
    """
    named = {node.name: node for node in code.nodes}
    first = {named[place.node]: input_name(name) for name, place in starts.items()}
    last = {input_name(name): named[place.node] for name, place in ends.items()}
    _check(first, last)
    given = {} if complete else _others(code, first, last.values(), sites)
    sizes = _sizes_of(code, {**first, **given}, last.values())
    needed = _needed(last.values(), {**first, **given}, sizes)
    own = {node: str(node.target) for node in code.find_nodes(op="placeholder") if node in needed}
    inputs = first | own | given
    part = _Part(weights, inputs, sizes)
    results = tuple(part.copy(node) for node in last.values())
    part.code.output(results)
    return Cut(
        code=part.code,
        weights=part.weights,
        call_spec=CallSpec.positional(tuple(inputs.values())),
        out_spec=pytree.tree_flatten(0 if len(last) == 1 else tuple(last))[1],
        outputs=tuple(last),
        sites=_sites(part, sites, tuple(last)),
    )


def _check(first: Mapping[fx.Node, str], last: Mapping[str, fx.Node]) -> None:
    for name, node in last.items():
        if node in first:
            raise InterfaceError(f"the part from {first[node]!r} to {name!r} has no operation")
    needed = {part for node in last.values() for part in ancestors(node)}
    for node, name in first.items():
        if node not in needed:
            raise InterfaceError(
                f"{', '.join(map(repr, last))} is not computed from {name!r}",
                ["give an end that comes after the start: print(graph.interfaces())"],
            )


def _others(
    code: fx.Graph,
    first: Mapping[fx.Node, str],
    last: Iterable[fx.Node],
    sites: Mapping[str, Site],
) -> dict[fx.Node, str]:
    """Return the activations that the part reads beside its starts, and their names.

    An activation is a value computed from inputs by weights. What depends on inputs alone, such as
    a mask, is computed in the part again.
    """
    needed = _needed(last, {*first, *_symbolic(code)})
    beside = (activations(code) & needed) - _after(code, first)
    given = _least_bytes(beside, needed)
    names: dict[str, str] = {}
    for key, site in sites.items():
        names.setdefault(site.node, key)
    return {
        node: input_name(names.get(node.name, node.name)) for node in code.nodes if node in given
    }


def _sizes_of(
    code: fx.Graph, given: Mapping[fx.Node, str], last: Iterable[fx.Node]
) -> dict[fx.Node, tuple[fx.Node, int]]:
    """Return which axis of which input of the part each size of the code is.

    Inputs that the part reads for their values come first, so that no other is needed.
    """
    symbolic = _symbolic(code)
    read = _needed(last, {*given, *symbolic})
    inputs = sorted(code.find_nodes(op="placeholder"), key=lambda node: node not in read)
    known = {
        str(expression(size)): (node, axis)
        for node in reversed([*given, *inputs])
        for axis, size in reversed([*enumerate(fake_tensor(node).shape)])
        if is_symbolic(size)
    }
    texts = {node: str(expression(fake_value(node))) for node in symbolic}
    return {node: known[text] for node, text in texts.items() if text in known}


def _symbolic(code: fx.Graph) -> list[fx.Node]:
    return [node for node in code.nodes if is_symbolic(node.meta.get("val"))]


def _needed(
    ends: Iterable[fx.Node],
    known: Container[fx.Node],
    sizes: Mapping[fx.Node, tuple[fx.Node, int]] | None = None,
) -> set[fx.Node]:
    """Return the ends and what they are computed from, without what is known."""
    stack = [node for node in ends if node not in known]
    found = set(stack)
    while stack:
        parts = _operands(stack.pop(), sizes or {})
        fresh = {part for part in parts if part not in known} - found
        found |= fresh
        stack += fresh
    return found


def _operands(node: fx.Node, sizes: Mapping[fx.Node, tuple[fx.Node, int]]) -> Sequence[fx.Node]:
    return [sizes[node][0]] if node in sizes else node.all_input_nodes


def _least_bytes(beside: Collection[fx.Node], needed: Collection[fx.Node]) -> set[fx.Node]:
    """Return the fewest bytes of activations from which the part is computed: a minimum cut.

    Of several such sets, it is the one nearest to the part.
    """
    import networkx as nx

    flow = nx.DiGraph()
    for node in beside:
        value = node.meta["val"]
        capacity = {"capacity": bytes_of(value)} if isinstance(value, torch.Tensor) else {}
        flow.add_edge((node, "computed"), (node, "read"), **capacity)
        if any(user in needed and user not in beside for user in node.users):
            flow.add_edge((node, "read"), "part")
        operands = [part for part in node.all_input_nodes if part in beside]
        for part in operands:
            flow.add_edge((part, "read"), (node, "computed"))
        if not operands:
            flow.add_edge("inputs", (node, "computed"))
    if "part" not in flow:
        return set()
    _, (_, near) = nx.minimum_cut(flow, "inputs", "part")  # of several, the nearest to the part
    return {node for node in beside if (node, "read") in near and (node, "computed") not in near}


def bytes_of(value: torch.Tensor) -> int:
    """Return the bytes of a value at the sizes of the capture."""
    return int(math.prod(map(example_size, value.shape)) * value.element_size())


def _after(code: fx.Graph, starts: Iterable[fx.Node]) -> set[fx.Node]:
    found = set(starts)
    for node in code.nodes:
        if any(part in found for part in node.all_input_nodes):
            found.add(node)
    return found


def activations(code: fx.Graph) -> set[fx.Node]:
    """Return the values computed from values of inputs by weights."""
    fed: set[fx.Node] = set(code.find_nodes(op="placeholder"))
    found: set[fx.Node] = set()
    for node in code.nodes:
        parts = values_of(node)
        if not isinstance(node.meta.get("val"), torch.Tensor | list | tuple) or fed.isdisjoint(
            parts
        ):
            continue
        fed.add(node)
        weighs = any(part.op == "get_attr" for part in parts)
        if weighs or not found.isdisjoint(parts):
            found.add(node)
    return found


class _Part:
    """The code of a part while it is copied."""

    def __init__(
        self,
        weights: Weights,
        inputs: Mapping[fx.Node, str],
        sizes: Mapping[fx.Node, tuple[fx.Node, int]],
    ) -> None:
        self.code = fx.Graph()
        self.weights = Weights(SourceTensors())
        self.mapping: dict[fx.Node, fx.Node] = {}
        self._whole = weights
        self._sizes = sizes
        for node, name in inputs.items():
            new = self.code.placeholder(name)
            new.meta = {"val": fake_tensor(node)}
            self.mapping[node] = new

    def copy(self, end: fx.Node) -> fx.Node:
        """Copy a node and what it is computed from."""
        stack = [end]
        while stack:
            node = stack[-1]
            waiting = [one for one in _operands(node, self._sizes) if one not in self.mapping]
            stack += waiting
            if not waiting:
                if node not in self.mapping:
                    self.mapping[node] = self._copied(node)
                stack.pop()
        return self.mapping[end]

    def _copied(self, node: fx.Node) -> fx.Node:
        if node in self._sizes:
            value, axis = self._sizes[node]
            operation = torch.ops.aten.sym_size.int
            new = self.code.call_function(operation, (self.mapping[value], axis))
            new.meta = {"val": node.meta["val"]}
            return new
        new = self.code.node_copy(node, self.mapping.__getitem__)
        if node.op == "get_attr":
            new.target = self._shared(str(node.target))
        return new

    def _shared(self, target: str) -> str:
        """Register a tensor under ``source``, and return its target."""
        tensor = held_at(self._whole, target)
        own, _, path = target.partition(".")
        if own == "program":
            assert isinstance(tensor, torch.Tensor)
            tensor, path = tensor.detach().clone(), target
        register(self.weights.source, path, tensor)
        return f"source.{path}"


def _sites(part: _Part, sites: Mapping[str, Site], outputs: Sequence[str]) -> dict[str, Site]:
    """Return the interfaces of the part: its inputs, those of the graph that lie in it, outputs."""
    new = {old.name: node for old, node in part.mapping.items()}
    found = {
        f"input:{node.target}": Site(node.name, tuple(_uses(node)))
        for node in part.code.find_nodes(op="placeholder")
    }
    for key, site in sites.items():
        if key.startswith(("input:", "output:")) or site.node not in new:
            continue
        node = new[site.node]
        kept = [Edge(new[edge.user].name, edge.slot) for edge in site.edges if edge.user in new]
        read = kept or [edge for edge in _uses(node) if edge.user == "output"]
        found[key] = Site(node.name, tuple(read), site.module)
    results = part.code.output_node().args[0]
    assert isinstance(results, tuple)
    for slot, (name, node) in enumerate(zip(outputs, results, strict=True)):
        assert isinstance(node, fx.Node)
        found[f"output:{name}"] = Site(node.name, (Edge("output", slot),))
    return found


def _uses(node: fx.Node) -> list[Edge]:
    return [
        Edge(user.name, slot)
        for user in sorted(node.users)
        for slot, leaf in enumerate(pytree.tree_leaves((user.args, user.kwargs)))
        if leaf is node
    ]
