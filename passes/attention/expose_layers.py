"""Interfaces at affine layers and norms, named by what they are for."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

from torch import fx

from graphprog.analysis.aliases import lies_in, tower_names
from graphprog.analysis.attention import activations, attentions
from graphprog.analysis.blocks.repeated_blocks import find_chains
from graphprog.analysis.boundaries import existing
from graphprog.analysis.layers.affine import AffineLayer, layer_of
from graphprog.analysis.layers.attention_layers import Projection, attention_layers
from graphprog.analysis.layers.feed_forward import feed_forwards
from graphprog.analysis.layers.norms import Norm, norms
from graphprog.errors import InterfaceError
from graphprog.ir.graph import Graph
from graphprog.ir.interface import LAYER, Edge, Interface
from graphprog.ir.printing import module_path
from graphprog.ir.records import Site
from graphprog.passes.attention.match_attention import attending
from graphprog.passes.base import Pass
from graphprog.rewriting.edges import Slot, uses_of
from graphprog.spec.checks import require_texts
from graphprog.spec.registry import spec

_NORM = re.compile(r"norm\[[^\[\]]+\](?::(?:in|out|weight|bias))?")
_FEED_FORWARD = re.compile(r"(?:.+\.)?mlp\[[^\[\]]+\](?::(?:in|out))?")
_NETWORK = "feed-forward network of affine layers around an activation, added to what it reads"
_WEIGHT = re.compile(r"(?P<of>.+):(?P<part>weight|bias)")


@spec("expose-layers")
@dataclasses.dataclass(frozen=True)
class ExposeLayers(Pass):
    """Name affine layers and norms by what they are for; no operation changes.

    ``attention[3].q_proj``, ``.k_proj``, ``.v_proj`` and ``.o_proj`` are the layers of an attention
    operation, ``mlp[3].up_proj``, ``.gate_proj`` and ``.down_proj`` those of a feed-forward
    network; ``norm[3]`` is a norm, counted over the whole graph. If one layer computes several of
    these, it is ``qkv_proj`` or ``gate_up_proj``; queries, keys and values are then ranges of its
    channels, or not interfaces if their channels are not a range. Each has the interfaces ``:in``,
    ``:out``, which is meant without one, ``:weight`` and ``:bias``. Any other layer has the last
    two by its own name: ``head:weight``. ``mlp[3]:in`` is the input of a feed-forward network.
    :func:`graphprog.compile` and instruments run this pass where such names are used.

    Attributes:
        at: names of such interfaces; those of a kind are found for the whole graph.

    Example:
        >>> named = gp.passes.ExposeLayers(("attention[*].q_proj", "mlp[*].down_proj"))(language)
        >>> named.interfaces().resolve("attention[0].q_proj:out").key
        'layers.0.q:out'
    """

    at: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_texts(self.kind, "at", self.at)

    def run(self, graph: Graph) -> Graph:
        """Add the interfaces and their aliases."""
        of = [match["of"] for name in self.at if (match := LAYER.fullmatch(name))]
        attended = [name for name in of if "attention[" in name]
        graph = _attending(graph, attended)
        names = _Names(graph)
        missing = names.add_attention() if attended else {}
        if any(map(_FEED_FORWARD.fullmatch, (*self.at, *of))):
            names.add_feed_forward()
        if any(map(_NORM.fullmatch, self.at)):
            names.add_norms()
        graph = names.graph()
        self._check(graph, missing)
        own = [name for name in self.at if _WEIGHT.fullmatch(name) and not _is_named(name)]
        return _with_weights(graph, own)

    def _check(self, graph: Graph, missing: Mapping[str, str]) -> None:
        """Check that every name is now an interface.

        Raises:
            InterfaceError: one is not; says why.
        """
        for name in filter(_is_named, self.at):
            try:
                graph.interfaces().resolve_all(name)
            except InterfaceError as error:
                raise _refusal(graph, name, missing, error) from error


def layers_named(graph: Graph, names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of layers that are not interfaces of a graph yet."""
    known = {*graph.sites, *graph.aliases}
    fresh = [name for name in names if name not in known and not name.startswith("source.")]
    wanted = [name for name in fresh if _is_named(name) or _WEIGHT.fullmatch(name)]
    return tuple(dict.fromkeys(wanted))


def _is_named(name: str) -> bool:
    return any(pattern.fullmatch(name) for pattern in (LAYER, _NORM, _FEED_FORWARD))


def _attending(graph: Graph, places: Sequence[str]) -> Graph:
    """Return the graph, with attention as single operations where names need it."""
    try:
        for place in places:
            graph.interfaces().resolve_all(place)
    except InterfaceError:
        return attending(graph, places)
    return graph


def _refusal(
    graph: Graph, name: str, missing: Mapping[str, str], error: InterfaceError
) -> InterfaceError:
    """Say why a name is not that of a layer."""
    match = LAYER.fullmatch(name)
    if match and "attention" in match["kind"]:
        part = match["part"].partition(":")[0]
        places = graph.interfaces().resolve_all(match["of"])
        for alias in (alias for place in places for alias in place.aliases):
            if reason := missing.get(f"{alias}.{part}"):
                return InterfaceError(f"{alias} has no {part}: {reason}")
        end = (match["end"] or "")[1:]
        return InterfaceError(
            f"{name!r}: the layer has no {end} of its own",
            [f"act on the whole layer if it computes more: {match['of']}.qkv_proj:{end}"],
        )
    known = any(re.search(r"\bmlp\[|\bnorm\[", alias) for alias in graph.aliases)
    if known or "ambiguous" in error.what:
        return error
    kind = "norm with a weight" if _NORM.fullmatch(name) else _NETWORK
    return InterfaceError(
        f"{name!r}: this graph has no {kind}",
        ["name the layer by its module: print(graph.interfaces()) shows all"],
    )


class _Names:
    """Interfaces and aliases that are added to a graph."""

    def __init__(self, graph: Graph) -> None:
        self.base = graph
        self.sites = dict(graph.sites)
        self.aliases = dict(graph.aliases)
        self.choices = dict(graph.choices)
        self.active = activations(graph.code)

    def graph(self) -> Graph:
        return dataclasses.replace(
            self.base, sites=self.sites, aliases=self.aliases, choices=self.choices
        )

    def add(self, alias: str, node: fx.Node, edges: Iterable[Slot]) -> None:
        """Make a place an interface, unless it is one, and name it."""
        edges = list(edges)
        key = existing(self.sites, node, edges)
        if not key:
            key = alias
            self.sites[key] = Site(node.name, tuple(Edge(user.name, slot) for user, slot in edges))
        self.aliases[alias] = key

    def add_layer(self, alias: str, projection: Projection) -> None:
        layer, output = projection.layer, projection.output
        self.add(f"{alias}:in", layer.input, layer.reading)
        self.add(f"{alias}:out", output, uses_of(output))
        if projection.rows is None:
            self.add_tensors(alias, layer)

    def add_tensors(self, alias: str, layer: AffineLayer | Norm) -> None:
        for part, tensor in (("weight", layer.weight), ("bias", layer.bias)):
            if tensor is not None and tensor.op == "get_attr":
                self.add(f"{alias}:{part}", tensor, _reading(tensor, layer))

    def add_attention(self) -> dict[str, str]:
        """Name the layers of attention; returns why some are missing."""
        places = {place.node: place for place in self.base.interfaces("*attention[*").values()}
        missing: dict[str, str] = {}
        for attention in attentions(self.base.code):
            place = places.get(attention.node.name)
            found, reasons = attention_layers(attention, self.active)
            for alias in _attention_names(place) if place else ():
                for name, projection in found.items():
                    self.add_layer(f"{alias}.{name}", projection)
                missing |= {f"{alias}.{name}": reason for name, reason in reasons.items()}
        return missing

    def add_feed_forward(self) -> None:
        chains = find_chains(self.base.code, self.base.sites)
        towers = dict(zip(tower_names(chains), chains, strict=True))
        counts: dict[str, int] = {}
        for network in feed_forwards(self.base.code, self.active):
            path = module_path(network.down.node)
            tower = next((name for name, chain in towers.items() if lies_in(path, chain)), "")
            short = f"mlp[{counts.get(tower, 0)}]"
            counts[tower] = counts.get(tower, 0) + 1
            alias = f"{tower}.{short}" if tower else short
            if tower:
                self.choices[short] = (*self.choices.get(short, ()), alias)
            for name, layer in network.layers.items():
                self.add_layer(f"{alias}.{name}", Projection(layer, layer.output))
            output = network.down.output
            for name in (alias, f"{alias}:out"):
                self.add(name, output, uses_of(output))
            first = [network.up, *([network.gate] if network.gate else [])]
            self.add(f"{alias}:in", first[0].input, [slot for one in first for slot in one.reading])

    def add_norms(self) -> None:
        for number, norm in enumerate(norms(self.base.code)):
            alias = f"norm[{number}]"
            self.add(f"{alias}:in", norm.input, norm.reading)
            for name in (alias, f"{alias}:out"):
                self.add(name, norm.output, uses_of(norm.output))
            self.add_tensors(alias, norm)


def _attention_names(place: Interface) -> list[str]:
    return [alias for alias in place.aliases if "attention[" in alias]


def _reading(tensor: fx.Node, layer: AffineLayer | Norm) -> list[Slot]:
    """Return the uses of a weight or bias by one layer, which may read it transposed."""
    own = (layer.node, layer.output)
    return [
        (user, slot)
        for user, slot in uses_of(tensor)
        if user in own or (user.op == "call_function" and layer.node in user.users)
    ]


def _with_weights(graph: Graph, names: Sequence[str]) -> Graph:
    """Add the weights and biases of layers that are named as modules."""
    found = _Names(graph)
    known = {norm.output: norm for norm in norms(graph.code)} if names else {}
    for name in names:
        match = _WEIGHT.fullmatch(name)
        assert match is not None
        for place in graph.interfaces().resolve_all(f"{match['of']}:out"):
            node = graph.nodes[place.node]
            layer = known.get(node) or layer_of(node)
            tensor = None if layer is None else getattr(layer, match["part"])
            if layer is None or tensor is None or tensor.op != "get_attr":
                raise InterfaceError(
                    f"{place.key} is not the result of an affine layer or a norm with a "
                    f"{match['part']}, so {name!r} is not an interface",
                    ["print(graph.interfaces()) shows the layers"],
                )
            found.add_tensors(place.key.removesuffix(":out"), layer)
    return found.graph()
