"""Values at places of a graph, from one run; where its weights are, and what it was before."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.errors import InterfaceError


class Pair(nn.Module):
    """Two layers, the second of which refuses to run on rows that are not alike."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).relu())


@pytest.fixture(scope="module")
def graph() -> gp.Graph:
    torch.manual_seed(0)
    return gp.capture(Pair(), (torch.randn(2, 3),))


def test_values_by_key_alias_and_node(graph: gp.Graph) -> None:
    x = torch.randn(5, 3)
    first = graph.weights.source.get_submodule("first")
    expected = torch.nn.functional.linear(x, first.weight, first.bias)
    found = graph.evaluate(["first:out", "logits"], [x])
    assert list(found) == ["first:out", "logits"]
    assert torch.equal(found["first:out"], expected)
    assert torch.equal(found["logits"], graph(x))
    assert not found["logits"].requires_grad
    node = graph.nodes[graph.interfaces()["first:out"].node]
    assert torch.equal(graph.evaluate([node], [x])[node], expected)
    with pytest.raises(InterfaceError, match="no interface 'third'"):
        graph.evaluate(["third"], [x])


def test_a_run_stops_after_the_last_place(graph: gp.Graph) -> None:
    run = graph.executable([graph.interfaces()["first:out"].node])
    assert [node.op for node in run.graph.nodes].count("call_function") == 1


def test_device_and_source(graph: gp.Graph) -> None:
    assert graph.device == torch.device("cpu")
    assert graph.source is graph
    task = gp.compile(graph, gp.Program([gp.Additive(at="input")]))
    assert task.graph.source is graph
    without = gp.capture(nn.ReLU(), (torch.randn(2, 3),))
    assert without.device == torch.device("cpu")
