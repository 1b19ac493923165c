"""Replacing an operation: the interfaces at its operands and at its result follow."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import graphprog as gp
from graphprog.errors import PassError
from graphprog.ir.graph import Graph
from graphprog.passes import Editor
from graphprog.passes.verify import CHECKS
from tests.support import oracle

ATEN = torch.ops.aten
X = torch.linspace(-2, 2, 12).reshape(3, 4)


class Net(nn.Sequential):
    def __init__(self, middle: nn.Module) -> None:
        super().__init__(nn.Linear(4, 4), middle, nn.Linear(4, 2))


class Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.gelu(2 * x) * x


@pytest.fixture(scope="module")
def model() -> Net:
    torch.manual_seed(0)
    return Net(nn.ReLU()).eval()


@pytest.fixture(scope="module")
def graph(model: Net) -> Graph:
    return gp.capture(model, (X,))


def doubled(graph: Graph) -> Graph:
    """Replace relu(x) by gelu(2 x) * x, in three operations."""
    edit = Editor(graph, "test")
    (relu,) = (node for node in edit.code.nodes if node.target is ATEN.relu.default)
    value = relu.args[0]
    twice = edit.call(ATEN.mul.Tensor, (value, 2), relu, "")
    curve = edit.call(ATEN.gelu.default, (twice,), relu, "")
    edit.substitute(relu, edit.call(ATEN.mul.Tensor, (curve, value), relu, ""))
    return edit.finish()


def test_interfaces_follow(model: Net, graph: Graph) -> None:
    changed = doubled(graph)
    CHECKS["structure"](changed, changed)
    assert changed.sites.keys() == graph.sites.keys()
    assert changed.aliases == graph.aliases
    other = Net(Doubled()).eval()
    other.load_state_dict(model.state_dict())
    assert torch.allclose(changed(X), other(X))
    pattern = torch.tensor([0.5, -1.0, 0.0, 2.0])
    for key in ("0:out", "1:in", "1:out", "2:in"):
        program = gp.Program([gp.Additive(at=key, value=gp.Fixed(pattern))])
        expected = oracle.changed(other, {key: lambda x: x + pattern}, (X,), {})
        assert torch.allclose(gp.compile(changed, program)(X), expected, atol=1e-6), key


def test_an_interface_that_nothing_reads_any_more_is_named(graph: Graph) -> None:
    edit = Editor(graph, "skip-layer")
    (relu,) = (node for node in edit.code.nodes if node.target is ATEN.relu.default)
    (linear,) = relu.all_input_nodes
    with pytest.raises(PassError, match=r"skip-layer replaces .*relu.* at 0:out, 1:in") as failure:
        edit.substitute(relu, linear.all_input_nodes[0])
    assert "edit.drop_sites(['0:out', '1:in'])" in str(failure.value)
    edit = Editor(graph, "skip-layer")
    (relu,) = (node for node in edit.code.nodes if node.target is ATEN.relu.default)
    edit.drop_sites(["0:out", "1:in"])
    edit.substitute(relu, relu.all_input_nodes[0].all_input_nodes[0])
    edit.erase_dead()
    assert torch.allclose(
        edit.finish()(X),
        graph.weights.source.get_parameter("2.bias")
        + X @ (graph.weights.source.get_parameter("2.weight").T),
        atol=1e-6,
    )


def test_where_the_operation_is_left_out_its_users_are_the_uses(graph: Graph) -> None:
    edit = Editor(graph, "no-activation")
    (relu,) = (node for node in edit.code.nodes if node.target is ATEN.relu.default)
    edit.substitute(relu, relu.all_input_nodes[0])
    changed = edit.finish()
    assert changed.sites.keys() == graph.sites.keys()
    assert len({changed.sites[key].edges for key in ("0:out", "1:in", "1:out", "2:in")}) == 1
