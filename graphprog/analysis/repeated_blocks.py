"""Repeated blocks of a network, found by structure: chains of modules of one class.

Block B follows block A when everything that reaches B's main input from the model's inputs came
through A's output. Parts inside a residual branch fail this test, since the residual goes around
them; whole residual blocks pass it, in convolutional networks and transformers alike.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Mapping

import torch
from torch import fx

from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Site

_CONTAINERS = "torch.nn.modules.container."


@dataclasses.dataclass(frozen=True)
class Block:
    """A module call: its path, class, and the keys of its main input and output."""

    path: str
    module: str
    inner: str
    outer: str


Chain = tuple[Block, ...]


def find_chains(code: fx.Graph, sites: Mapping[str, Site]) -> list[Chain]:
    """Find the repeated blocks of each tower, the best chain of each, in graph order."""
    nodes = {node.name: node for node in code.nodes}
    families: defaultdict[str, list[Block]] = defaultdict(list)
    for block in _blocks(sites, nodes):
        families[block.module].append(block)
    parents = {key.rsplit(":", 1)[0] for key in sites}
    prefixes = {path[:cut] for path in parents for cut in range(len(path)) if path[cut] == "."}
    ranked: list[tuple[tuple[bool, bool, int, int], Chain]] = []
    for family in families.values():
        for chain in _chains(family, sites, nodes):
            composite = all(_plain(block.path) in prefixes for block in chain)
            depth = min(block.path.count(".") for block in chain)
            rank = (composite, _alike(chain, sites), -depth, len(chain))
            ranked.append((rank, chain))
    ranked.sort(key=lambda item: item[0], reverse=True)
    chosen: list[Chain] = []
    for (composite, *_), chain in ranked:
        if not chosen or (composite and not any(_nested(chain, other) for other in chosen)):
            chosen.append(chain)
    order = {node.name: position for position, node in enumerate(code.nodes)}
    return sorted(chosen, key=lambda chain: order[sites[chain[0].outer].node])


def _plain(path: str) -> str:
    return path.split("@")[0]


def _blocks(sites: Mapping[str, Site], nodes: Mapping[str, fx.Node]) -> list[Block]:
    """Return module calls with a floating-point output and main input.

    The main input is the first argument. Of several outputs, the main one is the first with its
    shape, because a call can compute positions or attention weights before it.
    """
    entering: defaultdict[str, list[str]] = defaultdict(list)
    leaving: defaultdict[str, list[str]] = defaultdict(list)
    for key, site in sites.items():
        path, _, end = key.rpartition(":")
        if _floating(nodes[site.node]):
            (entering if end.startswith("in") else leaving)[path].append(key)
    found = []
    for path, keys in leaving.items():
        module = sites[keys[0]].module
        if path in entering and not module.startswith(_CONTAINERS):
            inner = min(entering[path], key=_index)
            shape = _shape(sites[inner], nodes)
            outer = min(keys, key=lambda key: (_shape(sites[key], nodes) != shape, _index(key)))
            found.append(Block(path, module, inner, outer))
    return found


def _index(key: str) -> float:
    """Return the position of an argument or result; named ones come last."""
    suffix = key.rpartition("[")[2].removesuffix("]")
    return int(suffix) if suffix.isdecimal() else math.inf


def _shape(site: Site, nodes: Mapping[str, fx.Node]) -> list[str]:
    return [str(size) for size in fake_tensor(nodes[site.node]).shape]


def _floating(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _chains(
    family: list[Block], sites: Mapping[str, Site], nodes: Mapping[str, fx.Node]
) -> list[Chain]:
    """Split a family into chains of at least two; branching families have none."""
    makers = {nodes[sites[block.outer].node]: block for block in family}
    following: dict[Block, Block] = {}
    starts: list[Block] = []
    for block in family:
        hits, reached_input = _origins(nodes[sites[block.inner].node], makers)
        if len(hits) == 1 and not reached_input:
            before = hits.pop()
            if before in following or before is block:
                return []
            following[before] = block
        elif hits:
            return []
        else:
            starts.append(block)
    chains = []
    for block in starts:
        chain = [block]
        while chain[-1] in following:
            chain.append(following[chain[-1]])
        if len(chain) > 1:
            chains.append(tuple(chain))
    return chains


def _origins(node: fx.Node, makers: Mapping[fx.Node, Block]) -> tuple[set[Block], bool]:
    """Return the blocks whose outputs a value comes from, and whether an input bypasses them."""
    hits: set[Block] = set()
    reached_input = False
    seen, stack = {node}, [node]
    while stack:
        current = stack.pop()
        if current in makers:
            hits.add(makers[current])
        elif current.op == "placeholder":
            reached_input = True
        else:
            fresh = [part for part in current.all_input_nodes if part not in seen]
            # sizes do not carry activations
            fresh = [part for part in fresh if isinstance(part.meta.get("val"), torch.Tensor)]
            seen.update(fresh)
            stack += fresh
    return hits, reached_input


def _alike(chain: Chain, sites: Mapping[str, Site]) -> bool:
    """Whether more than half of the blocks have the same parts."""
    parts: dict[str, list[tuple[str, str]]] = {block.path: [] for block in chain}
    for key, site in sites.items():
        for block in chain:
            if key.startswith(block.path + "."):
                parts[block.path].append((key[len(block.path) :], site.module))
    counts = Counter(tuple(sorted(value)) for value in parts.values())
    return counts.most_common(1)[0][1] * 2 > len(chain)


def _nested(chain: Chain, other: Chain) -> bool:
    """Whether a block of one chain lies inside a block of the other, or is the same call."""
    return any(
        (a.path + ".").startswith(b.path + ".") or (b.path + ".").startswith(a.path + ".")
        for a in chain
        for b in other
    )
