"""Linear layers side by side or in a row become one, where that is less work."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.errors import PassError
from graphprog.ir.printing import operator_name
from graphprog.passes.optimize.merge_linears import MergeLinears
from graphprog.passes.verify import CHECKS


def operators(graph: gp.Graph) -> list[str]:
    return [operator_name(node) for node in graph.code.nodes if node.op == "call_function"]


def merged(model: nn.Module, *shape: int) -> gp.Graph:
    """The merged graph, equal to the model."""
    graph = gp.capture(model.eval(), (torch.randn(2, *shape),))
    found = MergeLinears()(graph)
    for check in ("structure", "metadata", "polymorphism"):
        CHECKS[check](found, graph)
    x = torch.randn(5, *shape)
    torch.testing.assert_close(found(x), model(x), rtol=1e-4, atol=1e-5)
    return found


class Parallel(nn.Module):
    """Three layers read one value, one of them without a bias; a fourth reads another."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, size, bias=size != 4) for size in (3, 4, 5))
        self.other = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.cat([self.q(x), self.k(x), self.v(x)], -1).tanh()
        return y.sum(-1, keepdim=True) + self.other(x.tanh())


def test_layers_that_read_one_value_become_one() -> None:
    torch.manual_seed(0)
    found = merged(Parallel(), 7, 6)
    assert operators(found).count("linear") == 2
    assert not any(name.startswith("q.") for name, _ in found.weights.source.named_parameters())
    assert {"q:out", "k:out", "v:out", "q:in"} <= set(found.sites)


class Headed(nn.Module):
    def __init__(self, head: nn.Module, units: int = 12) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(6, units), head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.layer(x.tanh()))
        return found


class Picked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("index", torch.tensor([4, 1, 1]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, self.index]


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.rand(12, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.matrix.softmax(0)


class Sliced(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 2:7]


@pytest.mark.parametrize("head", [nn.Linear(12, 2), Picked(), Product(), Sliced()])
def test_a_head_is_multiplied_in(head: nn.Module) -> None:
    torch.manual_seed(0)
    found = merged(Headed(head), 6)
    assert operators(found) == ["tanh", "linear"] or "softmax.int" in operators(found)
    (linear,) = (node for node in found.code.nodes if operator_name(node) == "linear")
    assert linear.meta["val"].shape[1] == found.output_nodes[0].meta["val"].shape[1]


def test_a_bottleneck_stays() -> None:
    graph = gp.capture(Headed(nn.Linear(2, 6), 2).eval(), (torch.randn(2, 6),))
    assert MergeLinears()(graph).text == graph.text


def test_maps_and_heads_of_programs_are_multiplied_in() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 15)).eval()
    graph = gp.capture(model, (torch.rand(2, 6),))
    x = torch.rand(5, 6)
    for align in (gp.RandomMap(3), gp.LinearHead(3)):
        task = gp.compile(graph, gp.Program(align=align))
        frozen = gp.freeze(task, exact=False)
        torch.testing.assert_close(frozen(x), task(x), rtol=1e-4, atol=1e-5)
        computing = [name for name in operators(frozen) if name != "alias"]
        assert computing == ["linear", "relu", "linear"]
    with pytest.raises(PassError, match="merge-linears changes the source"):
        MergeLinears()(task.graph)
