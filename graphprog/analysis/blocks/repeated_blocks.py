"""Repeated blocks of a network, found by structure: module calls that lie on one residual stream.

A block is a call whose output continues its input on the residual stream, and that adds to it what
layers compute; in a network without residual additions, a call with branches, or any with layers.
Its class, or its place in a list, repeats along the stream. Of nested calls the outermost are
blocks; stages, which hold a list of blocks, are not. All blocks of a stream are one chain, in the
order of the data.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import fx

from graphprog.analysis.blocks.residual_stream import ResidualStream, mixes
from graphprog.ir.graph import Site
from graphprog.ir.printing import module_path

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
    """Find the repeated blocks of each stream, in graph order."""
    network = _Network(code, sites)
    calls = network.calls()
    if found := network.chains(network.blocks(calls, network.adds_to_stream)):
        return found
    for test in (network.adds, network.joins, network.has_parts, network.mixes):
        found = network.chains(network.blocks(calls, test))
        if found := [chain for chain in found if network.ends(chain[-1])]:
            return found
    return []


class _Network:
    """Module calls of a graph, and how the residual stream connects them."""

    def __init__(self, code: fx.Graph, sites: Mapping[str, Site]) -> None:
        self.sites = sites
        self.nodes = {node.name: node for node in code.nodes}
        self.stream = ResidualStream(code)
        paths = {key.rsplit(":", 1)[0] for key in sites}
        self.called = {
            _plain(key.rpartition(":")[0])
            for key, site in sites.items()
            if site.module and not site.module.startswith(_CONTAINERS)
        }
        self.parents = {
            _plain(path)[:cut]
            for path in paths
            for cut in range(len(path))
            if _plain(path)[cut : cut + 1] == "."
        }
        self.mixing = {
            prefix for node in code.nodes if mixes(node) for prefix in _prefixes(module_path(node))
        }
        last = code.output_node().all_input_nodes
        self.trunk = {node for result in last for node in self.stream.back(result)}

    def node(self, key: str) -> fx.Node:
        """Return the node of an interface."""
        node: fx.Node = self.nodes[self.sites[key].node]
        return node

    def position(self, key: str) -> int:
        """Return the position of an interface in the graph."""
        return self.stream.position(self.node(key))

    def calls(self) -> list[Block]:
        """Return the module calls with an output that continues an input.

        A call on several streams is listed for each. Of several outputs that continue an input,
        the first with its shape counts, because a call can compute attention weights before it.
        """
        entering: defaultdict[str, list[str]] = defaultdict(list)
        leaving: defaultdict[str, list[str]] = defaultdict(list)
        for key in self.sites:
            path, _, end = key.rpartition(":")
            if path and end.startswith(("in", "out")):
                (entering if end.startswith("in") else leaving)[path].append(key)
        found = []
        for path, outputs in leaving.items():
            module = self.sites[outputs[0]].module
            if module.startswith(_CONTAINERS):
                continue
            streams: defaultdict[str, list[str]] = defaultdict(list)
            for outer in outputs:
                inner = self._continued(outer, entering[path])
                if inner:
                    streams[inner].append(outer)
            for inner, outers in streams.items():
                shape = self._shape(inner)
                outer = min(outers, key=lambda key: (self._shape(key) != shape, _index(key)))
                found.append(Block(path, module, inner, outer))
        return found

    def _continued(self, outer: str, inputs: Iterable[str]) -> str:
        """Return the input that an output continues, the nearest of several; "" if none."""
        node = self.node(outer)
        found = [
            key
            for key in sorted(inputs, key=_index)
            if self.node(key) is not node and self.stream.continues(node, self.node(key))
        ]
        return max(found, key=self.position, default="")

    def _shape(self, key: str) -> list[str]:
        value = self.node(key).meta.get("val")
        return [str(size) for size in value.shape] if isinstance(value, torch.Tensor) else []

    def adds_to_stream(self, call: Block) -> bool:
        """Whether a call adds to its input, as it is, what layers compute."""
        return self.mixes(call) and self.stream.residuals(*self._span(call)) > 0

    def adds(self, call: Block) -> bool:
        """Whether branches are added on the way through a call."""
        return self.mixes(call) and self.stream.sums(*self._span(call)) > 0

    def joins(self, call: Block) -> bool:
        """Whether branches come together on the way through a call."""
        return self.mixes(call) and self.stream.joins(*self._span(call)) > 0

    def has_parts(self, call: Block) -> bool:
        """Whether a call with layers calls modules."""
        return self.mixes(call) and _plain(call.path) in self.parents

    def mixes(self, call: Block) -> bool:
        """Whether a call has layers."""
        return _plain(call.path) in self.mixing

    def ends(self, call: Block) -> bool:
        """Whether an output of the graph continues a call."""
        return self.node(call.outer) in self.trunk

    def _span(self, call: Block) -> tuple[fx.Node, fx.Node]:
        return self.node(call.inner), self.node(call.outer)

    def blocks(self, calls: Sequence[Block], test: Callable[[Block], bool]) -> list[Block]:
        """Return the outermost calls that repeat along a stream and pass a test, without stages.

        What repeats is a class, or a place in a list. Of a class, one call has to pass the test.
        """
        tested = {call.module for call in calls if test(call)}
        calls = [call for call in calls if call.module in tested]
        repeated = self._repeated(calls)
        chosen = [call for call in calls if repeated & {call.module, _numbered(call.path)}]
        resizing = {
            call.module for call in chosen if self._shape(call.inner) != self._shape(call.outer)
        }
        stages = {
            call.module
            for call in chosen
            if self._holds_blocks(call, chosen, one_class=call.module not in resizing)
        }
        chosen = [call for call in chosen if call.module not in stages]
        parts = {call.module for call in chosen if any(self._inside(call, one) for one in chosen)}
        return [call for call in chosen if call.module not in parts]

    def _repeated(self, calls: Sequence[Block]) -> set[str]:
        """Return classes, and places in lists, of which one call follows another on its stream."""
        ends: defaultdict[fx.Node, set[str]] = defaultdict(set)
        for call in calls:
            ends[self.node(call.outer)] |= {call.module, _numbered(call.path)}
        found: set[str] = set()
        for call in calls:
            missing = {call.module, _numbered(call.path)} - found
            for node in self.stream.back(self.node(call.inner)) if missing else ():
                found |= missing & ends.get(node, set())
        return found

    def _holds_blocks(self, stage: Block, calls: Iterable[Block], one_class: bool) -> bool:
        """Whether a call has several calls from one list on its stream, or of ``one_class``.

        Blocks that keep the shape can have lists of different parts.
        """
        last = self.node(stage.outer)
        counts = Counter(
            (call.module if one_class else "", _numbered(call.path))
            for call in calls
            if self._listed(call)
            and self._inside(call, stage)
            and self.stream.continues(last, self.node(call.outer))
        )
        return max(counts.values(), default=0) > 1

    def _listed(self, call: Block) -> bool:
        """Whether a call is that of a module in a container."""
        return _plain(call.path).rpartition(".")[0] not in self.called

    def _inside(self, call: Block, other: Block) -> bool:
        """Whether a call lies on the way through another one."""
        first, last = self._span(call)
        begin, end = self._span(other)
        positions = [self.stream.position(node) for node in (begin, first, last, end)]
        if not (positions[0] <= positions[1] and positions[2] <= positions[3]):
            return False
        if _plain(call.path).startswith(f"{_plain(other.path)}."):
            return True
        narrower = positions[1:3] != [positions[0], positions[3]]
        return narrower and self.stream.continues(end, last) and self.stream.continues(first, begin)

    def chains(self, blocks: Sequence[Block]) -> list[Chain]:
        """Return chains of at least two blocks; a call is in one of them, that nearest the output.

        Where several blocks follow one, the longest chain goes on. Another one begins only if it
        leads to an output.
        """
        ends = {self.node(block.outer): block for block in blocks}
        following: defaultdict[Block | None, list[Block]] = defaultdict(list)
        for block in sorted(blocks, key=lambda block: self.position(block.inner)):
            before = self.stream.back(self.node(block.inner))
            following[next((ends[node] for node in before if node in ends), None)].append(block)
        found: list[list[Block]] = []
        for block in following[None]:
            whole, *branches = _paths(block, following)
            found += [whole, *(branch for branch in branches if self.ends(branch[-1]))]
        taken: set[str] = set()
        chains = []
        found.sort(key=lambda path: (self.ends(path[-1]), len(path)), reverse=True)
        for path in found:
            chain = tuple(block for block in path if block.path not in taken)
            taken.update(block.path for block in chain)
            if len(chain) > 1:
                chains.append(chain)
        return sorted(chains, key=lambda chain: self.position(chain[0].outer))


def _paths(block: Block, following: Mapping[Block | None, Sequence[Block]]) -> list[list[Block]]:
    """Split the blocks from one on into chains, of which the first begins with it."""
    found = sorted((_paths(one, following) for one in following.get(block, ())), key=_length)
    if not found:
        return [[block]]
    longest = found.pop()
    return [[block, *longest[0]], *longest[1:], *(path for paths in found for path in paths)]


def _length(paths: Sequence[Sequence[Block]]) -> int:
    return len(paths[0])


def _plain(path: str) -> str:
    return path.split("@")[0]


def _numbered(path: str) -> str:
    return re.sub(r"\d+", "*", _plain(path))


def _prefixes(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


def _index(key: str) -> float:
    """Return the position of an argument or result; named ones come last."""
    suffix = key.rpartition("[")[2].removesuffix("]")
    return int(suffix) if suffix.isdecimal() else math.inf
