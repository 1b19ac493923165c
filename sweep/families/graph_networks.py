"""Families of torch_geometric: networks on a graph of nodes and edges."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sweep.examples import calling
from sweep.family import Case, Family, noise, settled

FEATURES, HIDDEN, CLASSES = 16, 32, 5

NETWORKS = ("GCN", "GraphSAGE", "GIN", "GAT", "EdgeCNN")
"""Whole networks of the library."""

LAYERS: dict[str, dict[str, Any]] = {
    "AGNNConv": {},
    "ARMAConv": {},
    "ChebConv": {"K": 2},
    "ClusterGCNConv": {},
    "EGConv": {"num_heads": 4, "num_bases": 2},
    "FeaStConv": {"heads": 2},
    "FiLMConv": {},
    "GATv2Conv": {},
    "GENConv": {},
    "GatedGraphConv": {},
    "GeneralConv": {},
    "GraphConv": {},
    "LEConv": {},
    "MFConv": {},
    "ResGatedGraphConv": {},
    "SGConv": {"K": 2},
    "SSGConv": {"alpha": 0.1},
    "SuperGATConv": {},
    "TAGConv": {},
    "TransformerConv": {},
}
"""Layers, each made a network of three, and their options."""


class Block(nn.Module):
    """A layer with a residual. Forward: [nodes, features], [2, edges] -> [nodes, features]."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        """Run the block."""
        return x + self.layer(x, edge_index).relu()


class Stack(nn.Module):
    """One kind of layer. Forward: [nodes, features], [2, edges] -> [nodes, classes]."""

    def __init__(self, layer: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, HIDDEN)
        self.blocks = nn.ModuleList(Block(layer()) for _ in range(3))
        self.last = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        """Run the network."""
        x = self.first(x)
        for block in self.blocks:
            x = block(x, edge_index)
        result: torch.Tensor = self.last(x)
        return result


def _edges(nodes: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(nodes + length)
    return torch.randint(0, 6 + nodes, (2, 3 * length), generator=generator)


def _nodes(batch: int, length: int) -> torch.Tensor:
    return noise(6 + batch, FEATURES)


@functools.cache
def families() -> tuple[Family, ...]:
    """All of them."""
    return tuple(
        Family(f"torch_geometric/{name}", "graph network", functools.partial(built, name))
        for name in (*NETWORKS, *LAYERS)
    )


def built(name: str) -> Case:
    """The small model of a family."""
    from torch_geometric import nn as geometric

    torch.manual_seed(0)
    if name in NETWORKS:
        model = getattr(geometric, name)(FEATURES, HIDDEN, num_layers=3, out_channels=CLASSES)
    else:
        options, layer = LAYERS[name], getattr(geometric, name)
        sizes = () if name == "AGNNConv" else (HIDDEN, HIDDEN)
        sizes = (HIDDEN, 2) if name == "GatedGraphConv" else sizes
        model = Stack(lambda: layer(*sizes, **options))
    makers = {"x": _nodes, "edge_index": _edges}
    axes = {"x": {0: "nodes"}, "edge_index": {1: "edges"}}
    still = {"x": {}, "edge_index": {}}
    return Case(settled(model), calling(makers, {}), (axes, still), what=name)
