"""Inputs that point into the axis: edges of graph networks, spans of texts."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch_geometric import nn as geometric

import graphprog as gp
from graphprog.errors import PassError
from graphprog.ir.graph import Graph

NODES, WIDTH, SEGMENTS = 7, 4, 2


class Network(nn.Module):
    """Two rounds of messages along edges, and a sum for each of two packed graphs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        source, target = edge_index
        for layer in self.layers:
            sent = layer(x).index_select(0, source)
            degree = x.new_ones(len(x)).scatter_add(0, target, x.new_ones(len(target)))
            x = x + torch.zeros_like(x).index_add(0, target, sent) / degree[:, None]
        places = batch[:, None].expand_as(x)
        return torch.zeros(SEGMENTS, WIDTH).scatter_add(0, places, x.tanh())


def packed(nodes: int = NODES) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(nodes)
    x = torch.randn(nodes, WIDTH, generator=generator)
    edges = torch.randint(nodes, (2, 3 * nodes + 1), generator=generator)
    return x, edges, (torch.arange(nodes) > 2).long()


def longer(call: tuple[Tensor, ...], new: Tensor, offset: int) -> tuple[Tensor, ...]:
    """The packed graph, written again with nodes more; edges are found by the names of nodes."""
    x, edges, batch = call
    names = [f"old {node}" for node in range(len(x))]
    rows = dict(zip(names, zip(x, batch, strict=True), strict=True))
    at = len(names) if offset == -1 else offset
    order = [*names[:at], *(f"new {node}" for node in range(len(new))), *names[at:]]
    rows |= {f"new {node}": (row, torch.tensor(0)) for node, row in enumerate(new)}
    moved = [[order.index(names[node]) for node in side] for side in edges.tolist()]
    features, segments = (torch.stack(part) for part in zip(*(rows[n] for n in order), strict=True))
    return features, torch.tensor(moved), segments


@cache
def network(varying: bool) -> tuple[Network, Graph]:
    torch.manual_seed(0)
    model = Network().eval().requires_grad_(False)
    axes = {"x": {0: "nodes"}, "edge_index": {1: "edges"}, "batch": {0: "nodes"}}
    still: dict[str, dict[int, str]] = {name: {} for name in axes}
    return model, gp.capture(model, packed(), dynamic_axes=axes if varying else still)


def part(new: Tensor, offset: int, at: str = "input:x", **options: object) -> gp.Concatenative:
    return gp.Concatenative(
        at=at, axis=0, length=len(new), offset=offset, value=gp.Fixed(new), **options
    )


SEGMENT = {"batch": "zero"}


@pytest.mark.parametrize("varying", [False, True], ids=["fixed", "varying"])
@pytest.mark.parametrize("offset", [0, 2, -1])
def test_edges_still_join_the_same_nodes(varying: bool, offset: int) -> None:
    model, graph = network(varying)
    new = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1))
    task = gp.compile(graph, gp.Program([part(new, offset, input_roles=SEGMENT)]))
    for nodes in (NODES, 9 if varying else NODES):
        call = packed(nodes)
        torch.testing.assert_close(task(*call), model(*longer(call, new, offset)))
        with task.disabled():
            assert torch.equal(task(*call), model(*call))


def test_edges_skip_the_nodes_of_two_insertions() -> None:
    model, graph = network(True)
    one, two = torch.randn(2, WIDTH), torch.randn(3, WIDTH)
    parts = [part(one, 0, input_roles=SEGMENT), part(two, 1, input_roles=SEGMENT)]
    call = packed(8)
    expected = model(*longer(longer(call, one, 0), two, 1))
    torch.testing.assert_close(gp.compile(graph, gp.Program(parts))(*call), expected)


def test_the_segment_of_new_nodes_has_to_be_given() -> None:
    _, graph = network(True)
    with pytest.raises(PassError, match=r"to which segment .*'batch': .* scatter_add"):
        gp.compile(graph, gp.Program([part(torch.zeros(3, WIDTH), 0)]))


def test_labels_of_packed_graphs_are_counted_by_the_output() -> None:
    _, graph = network(True)
    task = gp.compile(graph, gp.Program([part(torch.zeros(3, WIDTH), 0, input_roles=SEGMENT)]))
    task.check(packed(9), torch.tensor([0, 3]))
    with pytest.raises(gp.errors.DataError, match="labels"):
        task.check(packed(9), torch.zeros(9).long())


class Spans(nn.Module):
    """States of a text at the positions of an input, negative ones from the end."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.words = nn.Embedding(20, WIDTH)

    def forward(self, ids: Tensor, places: Tensor) -> Tensor:
        x = self.words(ids).cumsum(1)
        rows = torch.arange(len(ids))[:, None]
        if self.kind == "index":
            return x[rows, places]
        if self.kind == "gather":
            return x.gather(1, places[..., None].expand(-1, -1, WIDTH))
        if self.kind == "next":
            return x[rows, places + 1]
        return x[rows, places] + self.words(places)


@cache
def spans(kind: str) -> tuple[Spans, Graph]:
    torch.manual_seed(0)
    model = Spans(kind).eval().requires_grad_(False)
    call = (torch.ones(2, 6).long(), torch.zeros(2, 4).long())
    axes = {"ids": {0: "batch", 1: "sequence"}, "places": {0: "batch"}}
    return model, gp.capture(model, call, dynamic_axes=axes)


@pytest.mark.parametrize("offset", [0, 2, -1])
@pytest.mark.parametrize(("kind", "low"), [("index", -7), ("gather", 0)])
def test_positions_of_a_text_skip_inserted_tokens(kind: str, low: int, offset: int) -> None:
    model, graph = spans(kind)
    new = torch.randn(3, WIDTH)
    prompt = gp.Concatenative(at="tokens", length=3, offset=offset, value=gp.Fixed(new))
    task = gp.compile(graph, gp.Program([prompt]))
    ids, places = torch.randint(20, (4, 7)), torch.randint(low, 7, (4, 4))
    at = 7 if offset == -1 else offset
    order = [*range(at), None, None, None, *range(at, 7)]
    words = model.words(ids)
    states = torch.cat([words[:, :at], new.expand(4, -1, -1), words[:, at:]], 1).cumsum(1)
    expected = [
        torch.stack([row[order.index(place % 7)] for place in chosen])
        for row, chosen in zip(states, places.tolist(), strict=True)
    ]
    torch.testing.assert_close(task(ids, places), torch.stack(expected))


@pytest.mark.parametrize(
    ("kind", "said"),
    [("next", "positions on the axis are computed from places"), ("looked up", "but also into")],
)
def test_positions_with_another_use_are_refused(kind: str, said: str) -> None:
    _, graph = spans(kind)
    with pytest.raises(PassError, match=said):
        gp.compile(graph, gp.Program([gp.Concatenative(at="words:out", length=3)]))


class PackedGraphs(Dataset[tuple[tuple[Tensor, ...], Tensor]]):
    """Batches of two graphs each; the label says in which graph the features are larger."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[tuple[Tensor, ...], Tensor]:
        x, edges, batch = packed(NODES + index)
        label = torch.tensor([index % 2, 1 - index % 2])
        return (x + label[batch][:, None], edges, batch), label


def test_packed_graphs_train() -> None:
    _, graph = network(True)
    prompt = gp.Concatenative(at="input:x", axis=0, length=3, input_roles=SEGMENT)
    head = gp.LinearHead(2, at="logits")
    task = gp.compile(graph, gp.Program([prompt], align=head))
    before = graph.weight_hash()
    data = DataLoader(PackedGraphs(), batch_size=None)
    history = gp.fit(task, data, epochs=12, lr=0.1)
    losses = [record.train_loss for record in history.records]
    assert losses[-1] < 0.7 * losses[0]
    assert gp.evaluate(task, data).accuracy > 0.5
    assert graph.weight_hash() == before
    share = history.records[0].train_accuracy * 12
    assert share == pytest.approx(round(share))  # of twelve graphs, not of their nodes


class Pooled(nn.Module):
    """A graph network of PyTorch Geometric; the number of graphs comes from the data."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = geometric.GCNConv(WIDTH, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        hidden = self.layer(x, edge_index).relu()
        logits: Tensor = self.head(geometric.global_mean_pool(hidden, batch))
        return logits


def test_a_pool_without_a_size_takes_any_number_of_graphs() -> None:
    torch.manual_seed(0)
    model = Pooled().eval().requires_grad_(False)
    axes = {"x": {0: "nodes"}, "edge_index": {1: "edges"}, "batch": {0: "nodes"}}
    graph = gp.capture(model, packed(), dynamic_axes=axes)
    new = torch.randn(3, WIDTH)
    task = gp.compile(graph, gp.Program([part(new, 2, input_roles=SEGMENT)]))
    x, edges, _ = packed(11)
    call = x, edges, torch.tensor([0] * 3 + [1] * 4 + [2] * 4)  # three graphs, not two
    assert torch.equal(graph(*call), model(*call))
    torch.testing.assert_close(task(*call), model(*longer(call, new, 2)))
