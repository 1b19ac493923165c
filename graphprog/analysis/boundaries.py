"""Interfaces for graphs without taps, from module metadata or from dominators."""

from __future__ import annotations

import itertools
from collections import defaultdict

import torch
from torch import fx

from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph, Site
from graphprog.ir.interface import Edge
from graphprog.ir.ops import schema_name
from graphprog.ir.printing import clean_path, operator_name
from graphprog.rewriting.edges import uses_of

_NO_MODULE = "_empty_nn_module_stack_from_metadata_hook"
"""Metadata that tracing writes for nodes outside any module."""


def _site(node: fx.Node, edges: list[tuple[fx.Node, int]], module: str = "") -> Site:
    return Site(node.name, tuple(Edge(user.name, slot) for user, slot in edges), module)


def is_tensor(node: fx.Node) -> bool:
    """Whether the node's value is one tensor."""
    return isinstance(node.meta.get("val"), torch.Tensor)


def model_boundaries(graph: Graph) -> tuple[dict[str, Site], dict[str, Site]]:
    """Return ``input:name`` with all uses of the input, and ``output:name`` with its use."""
    inputs, outputs = {}, {}
    for node in graph.placeholders:
        if node.users:
            inputs[f"input:{node.target}"] = _site(node, uses_of(node))
    last = graph.code.output_node()
    for slot, (name, node) in enumerate(zip(graph.outputs, graph.output_nodes, strict=True)):
        if isinstance(node, fx.Node) and is_tensor(node):
            outputs[f"output:{name}"] = _site(node, [(last, slot)])
    return inputs, outputs


def module_boundaries(graph: Graph) -> dict[str, Site]:
    """Return the values that enter and leave each module, from the module stack in metadata.

    If several values cross a boundary, each gets an index in graph order. Modules that compute
    nothing do not appear, and repeated calls of a module look like one.
    """
    inside: defaultdict[str, list[fx.Node]] = defaultdict(list)
    classes: dict[str, str] = {}
    for node in graph.code.nodes:
        for frame, owner in (node.meta.get("nn_module_stack") or {}).values():
            path = clean_path(frame)
            if path and path != _NO_MODULE and node.op == "call_function":
                inside[path].append(node)
                classes[path] = owner if isinstance(owner, str) else owner.__qualname__
    sites: dict[str, Site] = {}
    for path, members in inside.items():
        own = set(members)
        entering: dict[fx.Node, list[tuple[fx.Node, int]]] = {}
        leaving: dict[fx.Node, list[tuple[fx.Node, int]]] = {}
        for node in members:
            for source in node.all_input_nodes:
                if source not in own and source.op != "get_attr" and is_tensor(source):
                    entering[source] = [use for use in uses_of(source) if use[0] in own]
            outside = [use for use in uses_of(node) if use[0] not in own]
            if outside and is_tensor(node):
                leaving[node] = outside
        for end, values in (("in", entering), ("out", leaving)):
            for index, (node, edges) in enumerate(values.items()):
                suffix = f"[{index}]" if len(values) > 1 else ""
                sites[f"{path}:{end}{suffix}"] = _site(node, edges, classes[path])
    return _in_order(graph, sites)


def _in_order(graph: Graph, sites: dict[str, Site]) -> dict[str, Site]:
    """Sort sites in data-flow order: a value leaves inner and enters outer modules first."""
    order = {node.name: position for position, node in enumerate(graph.code.nodes)}

    def rank(key: str) -> tuple[int, bool, int]:
        enters, depth = ":in" in key, key.count(".")
        return order[sites[key].node], enters, depth if enters else -depth

    return {key: sites[key] for key in sorted(sites, key=rank)}


def cut_boundaries(graph: Graph) -> tuple[dict[str, Site], list[str]]:
    """Return boundaries of graphs without module names: values that all data pass through.

    Dominators of the first output, seen from the first floating value, split the graph into
    segments. Returns a site ``cut.i:out`` for each, and the keys of the cuts that end the
    longest run of repeated segments, which is what ``hidden[i]`` then means.
    """
    cuts = _dominators(graph)
    sites = {f"cut.{i}:out": _site(node, uses_of(node)) for i, node in enumerate(cuts)}
    start, period, repeats = _longest_repetition(_segments(graph, cuts))
    ends = [start + period * (i + 1) for i in range(repeats)]
    return sites, [f"cut.{start}:out", *(f"cut.{end}:out" for end in ends)] if repeats > 1 else []


def _dominators(graph: Graph) -> list[fx.Node]:
    import networkx as nx

    order = {node: position for position, node in enumerate(graph.code.nodes)}
    floating = {
        node
        for node in order
        if is_tensor(node) and node.op != "get_attr" and fake_tensor(node).is_floating_point()
    }
    outputs = [node for node in graph.output_nodes if node in floating]
    roots = [node for node in floating if node.op == "placeholder"]
    roots = roots or [n for n in floating if schema_name(n) == "aten::embedding"]
    if not outputs or not roots:
        return []
    flow = nx.DiGraph()
    flow.add_edges_from(
        (node, user) for node in floating for user in node.users if user in floating
    )
    root = min(roots, key=order.__getitem__)
    if root not in flow or outputs[0] not in nx.descendants(flow, root):
        return []
    parents = nx.immediate_dominators(flow, root)
    chain = [outputs[0]]
    while chain[-1] != root:
        chain.append(parents[chain[-1]])
    return chain[::-1]


def _segments(graph: Graph, cuts: list[fx.Node]) -> list[tuple[str, ...]]:
    """Return the operations between consecutive cuts, as comparable signatures."""
    order = {node: position for position, node in enumerate(graph.code.nodes)}
    segments = []
    for first, last in itertools.pairwise(cuts):
        names, stack, seen = [], [last], {first, last}
        while stack:
            node = stack.pop()
            names.append((order[node], operator_name(node)))
            fresh = [n for n in node.all_input_nodes if n not in seen and n.op == "call_function"]
            seen.update(fresh)
            stack += fresh
        segments.append(tuple(name for _, name in sorted(names)))
    return segments


def _longest_repetition(segments: list[tuple[str, ...]]) -> tuple[int, int, int]:
    """Return start, period and count of the tandem repeat that covers most segments."""
    best = (0, 1, 0)
    for period in range(1, len(segments) // 2 + 1):
        start = 0
        while start + 2 * period <= len(segments):
            end = start + period
            while end < len(segments) and segments[end] == segments[end - period]:
                end += 1
            repeats = (end - start) // period
            if repeats > 1 and repeats * period > best[1] * best[2]:
                best = (start, period, repeats)
            start = max(start + 1, end - period + 1)
    return best


def existing(sites: dict[str, Site], node: fx.Node, edges: list[tuple[fx.Node, int]]) -> str:
    """Return the key of the innermost site with this value and these uses, or ""."""
    wanted = {(user.name, slot) for user, slot in edges}
    for key, site in reversed(sites.items()):
        if site.node == node.name and {(e.user, e.slot) for e in site.edges} == wanted:
            return key
    return ""
