"""Aliases of interfaces, found by structure alone."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping

from torch import fx

from graphprog.analysis.attention import attentions, is_cross
from graphprog.analysis.blocks.repeated_blocks import Block, Chain, find_chains
from graphprog.analysis.blocks.residual_stream import ResidualStream
from graphprog.analysis.blocks.stages import stages_of
from graphprog.analysis.boundaries import (
    cut_boundaries,
    existing,
    is_tensor,
    model_boundaries,
    module_boundaries,
)
from graphprog.analysis.token_inputs import largest_by_input, lookups_of, vocabulary_lookups
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph, Site
from graphprog.ir.interface import Edge
from graphprog.ir.ops import ancestors, schema_name
from graphprog.ir.printing import module_path
from graphprog.rewriting.edges import uses_of

_NORMS = ("aten::layer_norm", "aten::native_layer_norm", "aten::rms_norm", "aten::group_norm")
_AFFINE = ("aten::linear", "aten::addmm", "aten::mm", "aten::matmul", "aten::bmm")


def with_structure(graph: Graph) -> Graph:
    """Add interfaces and their aliases to a graph."""
    # in data-flow order, which decides between interfaces with the same uses
    inputs, outputs = model_boundaries(graph)
    sites = inputs | (dict(graph.sites) or module_boundaries(graph))
    named = _Aliases()
    chains: list[Chain] = []
    if len(sites) > len(inputs):
        chains = find_chains(graph.code, sites)
        _name_blocks(graph, sites, named, chains)
    else:
        cuts, ends = cut_boundaries(graph)
        sites |= cuts
        if ends:
            named.add("", "embedding", ends[0])
            for index, key in enumerate(ends[1:]):
                named.add("", f"hidden[{index}]", key)
    _name_attention(graph, sites, chains, named)
    sites |= outputs
    for key in inputs:
        named.add(key.removeprefix("input:") if len(inputs) > 1 else "", "input", key)
    _name_tokens(graph, sites, chains, named)
    _name_head(graph, sites, named)
    if len(chains) > 1:
        stream = ResidualStream(graph.code)
        for tower, chain in zip(tower_names(chains), chains, strict=True):
            _name_prenorm(graph, sites, stream, (tower, chain), named)
            _name_features(graph, sites, stream, chains, (tower, chain), named)
    return dataclasses.replace(graph, sites=sites, aliases=named.keys, choices=named.choices)


class _Aliases:
    """Aliases, qualified by tower if a graph has several candidates."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}
        self.choices: dict[str, tuple[str, ...]] = {}

    def add(self, tower: str, alias: str, key: str) -> None:
        if not tower:
            self.keys[alias] = key
            return
        qualified = f"{tower}.{alias}"
        self.keys[qualified] = key
        self.choices[alias] = (*self.choices.get(alias, ()), qualified)


def _name_blocks(
    graph: Graph, sites: dict[str, Site], named: _Aliases, chains: list[Chain]
) -> None:
    """Name ``embedding`` and ``hidden[i]``; in a hierarchy, ``stages[s].hidden[i]`` too."""

    def shape(block: Block) -> tuple[str, ...]:
        sizes = fake_tensor(graph.nodes[sites[block.outer].node]).shape[1:]
        return tuple(map(str, sizes))

    for chain, tower in zip(chains, tower_names(chains), strict=True):
        named.add(tower, "embedding", chain[0].inner)
        for index, block in enumerate(chain):
            named.add(tower, f"hidden[{index}]", block.outer)
        for number, stage in enumerate(stages_of(chain, shape)):
            for index, block in enumerate(stage):
                named.add(tower, f"stages[{number}].hidden[{index}]", block.outer)


def _name_attention(
    graph: Graph, sites: dict[str, Site], chains: list[Chain], named: _Aliases
) -> None:
    """Name ``attention[k]`` and ``cross_attention[k]``, the results of attention in a tower."""
    towers = dict(zip(tower_names(chains), chains, strict=True))
    counts: Counter[tuple[str, str]] = Counter()
    for attention in attentions(graph.code):
        path = module_path(attention.node)
        tower = next((name for name, chain in towers.items() if lies_in(path, chain)), "")
        alias = "cross_attention" if is_cross(attention) else "attention"
        number = counts[tower, alias]
        counts[tower, alias] += 1
        key = f"{path}:attention" if path else f"attention.{len(counts)}.{number}:out"
        if key in sites:
            key += f"[{number}]"
        key = _ensure(sites, attention.node, uses_of(attention.node), key)
        named.add(tower, f"{alias}[{number}]", key)


def lies_in(path: str, chain: Chain) -> bool:
    """Whether a module is inside a block of a chain."""
    return any(f"{path}.".startswith(f"{block.path.split('@')[0]}.") for block in chain)


def tower_names(chains: list[Chain]) -> list[str]:
    """Return the first part of the module path that differs between towers; "" for one tower."""
    if len(chains) < 2:
        return ["" for _ in chains]
    paths = [chain[0].path.split(".") for chain in chains]
    depth = 0
    while all(len(path) > depth + 1 for path in paths) and len({p[depth] for p in paths}) == 1:
        depth += 1
    names = [path[depth].removesuffix("_model") for path in paths]
    if len(set(names)) == len(names):
        return names
    return [".".join(path[depth:-1]) or f"tower{i}" for i, path in enumerate(paths)]


def _name_tokens(
    graph: Graph, sites: dict[str, Site], chains: list[Chain], named: _Aliases
) -> None:
    """Name ``tokens``: the result of looking up an integer input in the largest table.

    If the module also scales the result, prompts act on the scaled result. Of several towers, the
    first that the result enters gives it a name too, such as ``text.tokens``.
    """
    entered = {
        tower: set(ancestors(graph.nodes[sites[chain[0].inner].node]))
        for tower, chain in zip(tower_names(chains), chains, strict=True)
    }
    largest = vocabulary_lookups(largest_by_input(lookups_of(graph.code.nodes)).values())
    for one in largest:
        name = str(one.ids.target)
        node = _scaled(graph, sites, one.node)
        key = _ensure(sites, node, uses_of(node), f"tokens:{name}")
        named.add(name if len(largest) > 1 else "", "tokens", key)
        towers = [tower for tower, nodes in entered.items() if tower and node in nodes]
        if towers:
            named.keys.setdefault(f"{towers[0]}.tokens", key)


def _scaled(graph: Graph, sites: Mapping[str, Site], lookup: fx.Node) -> fx.Node:
    """Return the output of the module with the lookup, if it is the lookup times a constant.

    Some rows may differ, such as that of a token that is not in the table.
    """
    site = sites.get(f"{module_path(lookup)}:out")
    node = graph.nodes[site.node] if site else lookup
    while node is not lookup:
        name = schema_name(node)
        data = [part for part in node.all_input_nodes if is_tensor(part) and fake_tensor(part).ndim]
        if name in ("aten::where", "aten::index_put", "aten::masked_fill"):
            data = [part for part in data if fake_tensor(part).ndim == fake_tensor(lookup).ndim]
        elif name not in ("aten::mul", "aten::to", "aten::_to_copy"):
            return lookup
        if len(data) != 1:
            return lookup
        node = data[0]
    return graph.nodes[site.node] if site else lookup


def _name_head(graph: Graph, sites: dict[str, Site], named: _Aliases) -> None:
    """Name ``logits``, the output of that name or the only one, and ``features``."""
    outputs = [key for key in sites if key.startswith("output:")]
    if "output:logits" in outputs:
        outputs = ["output:logits"]
    for key in outputs:
        named.add(key.removeprefix("output:") if len(outputs) > 1 else "", "logits", key)
    if len(outputs) == 1:
        head = _last_affine(graph, sites[outputs[0]].node)
        if head is not None:
            value, slot = _affine_input(head)
            key = _ensure(sites, value, [(head, slot)], "features")
            named.add("", "features", key)


def _name_prenorm(
    graph: Graph,
    sites: dict[str, Site],
    stream: ResidualStream,
    tower: tuple[str, Chain],
    named: _Aliases,
) -> None:
    """Name ``vision.prenorm``: what a norm before the first block of a tower reads.

    Without a norm it is what enters the first block.
    """
    name, chain = tower
    key = chain[0].inner
    norm = graph.nodes[sites[key].node]
    if schema_name(norm) in _NORMS and (operands := stream.activations(norm)):
        key = _ensure(sites, operands[0], [(norm, 0)], f"prenorm:{name}")
    named.add(name, "prenorm", key)


def _name_features(
    graph: Graph,
    sites: dict[str, Site],
    stream: ResidualStream,
    chains: list[Chain],
    tower: tuple[str, Chain],
    named: _Aliases,
) -> None:
    """Name ``vision.features``: what the last affine layer after the blocks of a tower reads."""
    name, chain = tower
    last = graph.nodes[sites[chain[-1].outer].node]
    heads = [
        node
        for node in graph.code.nodes
        if schema_name(node) in _AFFINE
        and stream.continues(node, last)
        and len(stream.activations(node)) == 1
        and not any(lies_in(module_path(node), one) for one in chains)
    ]
    if heads:
        value, slot = _affine_input(heads[-1])
        key = _ensure(sites, value, [(heads[-1], slot)], f"features:{name}")
        if "features" in named.keys:
            named.keys[f"{name}.features"] = key
        else:
            named.add(name, "features", key)


def _last_affine(graph: Graph, name: str) -> fx.Node | None:
    """Return the affine layer with its own weights that leads to the logits by a single path."""
    depends = _depends_on_input(graph)
    node = graph.nodes[name]
    while node.op == "call_function":
        data = [part for part in node.all_input_nodes if part in depends and is_tensor(part)]
        if schema_name(node) in _AFFINE and len(data) == 1:
            return node
        if len(data) != 1:
            return None
        node = data[0]
    return None


def _affine_input(node: fx.Node) -> tuple[fx.Node, int]:
    slot = 1 if schema_name(node) == "aten::addmm" else 0
    value = node.args[slot]
    assert isinstance(value, fx.Node)
    return value, slot


def _depends_on_input(graph: Graph) -> set[fx.Node]:
    found: set[fx.Node] = set()
    for node in graph.code.nodes:
        if node.op == "placeholder" or any(part in found for part in node.all_input_nodes):
            found.add(node)
    return found


def _ensure(
    sites: dict[str, Site], node: fx.Node, edges: list[tuple[fx.Node, int]], key: str
) -> str:
    """Return the key of this place, or ``key`` for a new one."""
    known = existing(sites, node, edges)
    if not known:
        sites[key] = Site(node.name, tuple(Edge(user.name, slot) for user, slot in edges))
    return known or key
