"""A GELU that is written out becomes one operation, with the same values and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import graphprog as gp
from graphprog.errors import PassError
from graphprog.ir.printing import operator_name

SCALE = math.sqrt(2 / math.pi)


class Written(nn.Module):
    """As transformers write it for GPT-2."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x * (1.0 + torch.tanh(SCALE * (x + 0.044715 * torch.pow(x, 3.0))))


class Other(nn.Module):
    """Alike, but not a GELU, or read inside."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cubic = 0.05 if self.kind == "number" else 0.044715
        power = torch.pow(x, 2.0 if self.kind == "power" else 3.0)
        inner = torch.tanh(SCALE * (x + cubic * power))
        if self.kind == "gate":
            return 0.5 * x * (x.relu() + 1.0) * inner
        half = 0.5 * (x + 1 if self.kind == "value" else x)
        result = half * (1.0 + inner)
        return result + inner if self.kind == "read" else result


class Net(nn.Module):
    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.Linear(6, 8), act, nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.act(self.first(x)))


def captured(act: nn.Module) -> gp.Graph:
    torch.manual_seed(0)
    return gp.capture(Net(act).eval(), (torch.rand(2, 6),))


def operators(graph: gp.Graph) -> list[str]:
    return [operator_name(node) for node in graph.code.nodes if node.op == "call_function"]


def test_values_and_gradients_are_those_of_the_function() -> None:
    graph = captured(Written())
    fused = gp.optimize(graph)
    assert [name.partition(".")[0] for name in operators(fused)] == ["linear", "gelu", "linear"]
    (step,) = (step for step in fused.history if step.text == "fuse-gelu")
    assert step.changed
    x = (4 * torch.randn(7, 6)).requires_grad_()
    made = fused(x)
    torch.testing.assert_close(made, graph(x), rtol=1e-5, atol=1e-6)
    net = Net(nn.GELU(approximate="tanh"))
    net.load_state_dict(dict(graph.weights.source.named_parameters()))
    assert torch.equal(made, net(x))
    for one, other in zip(
        torch.autograd.grad(made.sum(), x), torch.autograd.grad(graph(x).sum(), x), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_interfaces_around_it_stay() -> None:
    graph = captured(Written())
    fused = gp.passes.FuseGelu()(graph)
    assert {"act:in", "act:out"} <= set(fused.interfaces()) <= set(graph.interfaces())
    x, shift = torch.rand(3, 6), torch.rand(8)
    for at in ("act:in", "act:out"):
        added = gp.Program([gp.Additive(at=at, value=gp.Learnable("normal", shape=(8,)))])
        task = gp.compile(fused, added)
        with torch.no_grad():
            next(task.program.parameters()).copy_(shift)
        hidden = graph.weights.source.first.weight, graph.weights.source.first.bias
        value = functional.linear(x, *hidden)
        inside = functional.gelu(value + shift * (at == "act:in"), approximate="tanh")
        inside = inside + shift * (at == "act:out")
        last = graph.weights.source.last
        wanted = functional.linear(inside, last.weight, last.bias)
        torch.testing.assert_close(task(x), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["number", "power", "value", "read", "gate"])
def test_what_is_another_function_or_is_read_inside_stays(kind: str) -> None:
    graph = captured(Other(kind))
    assert gp.passes.FuseGelu()(graph).text == graph.text


def test_a_graph_with_a_program_is_refused() -> None:
    task = gp.compile(captured(Written()), gp.Program([gp.Additive()]))
    with pytest.raises(PassError, match="changes the source"):
        gp.passes.FuseGelu()(task.graph)
