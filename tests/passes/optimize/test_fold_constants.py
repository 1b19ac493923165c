"""Constants are computed once, bit for bit; what inputs, programs or sizes decide is not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import graphprog as gp
from graphprog.errors import PassError, ProgramError
from graphprog.ir.printing import operator_name
from graphprog.passes.optimize.fold_constants import FoldConstants, with_constants
from graphprog.passes.verify import CHECKS
from tests.models.networks.random_networks import Network, X, few, networks


class Towers(nn.Module):
    """A table that is indexed and squashed, a class tower, a cast weight, and a random number."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(5, 4))
        self.register_buffer("index", torch.randint(0, 5, (6,)))
        self.register_buffer("short", torch.randn(4, 4, dtype=torch.float16))
        self.tower = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        classes = nn.functional.normalize(self.tower(self.table[self.index]), dim=-1)
        x = x @ self.short.float().t() + self.table[0].t()
        places = torch.arange(x.shape[1], dtype=x.dtype).sin()
        return (
            x @ classes.t(),
            classes,
            classes[0].expand(x.shape[0], x.shape[1], 4) + 0 * places[0],
        )


def operators(graph: gp.Graph) -> list[str]:
    return [operator_name(node) for node in graph.code.nodes if node.op == "call_function"]


@pytest.fixture(scope="module")
def towers() -> tuple[nn.Module, gp.Graph, torch.Tensor]:
    torch.manual_seed(0)
    model = Towers().eval()
    x = torch.randn(3, 7, 4)
    graph = gp.capture(model, (x,), dynamic_axes={"x": {0: "B", 1: "S"}})
    return model, graph, x


def test_a_tower_without_inputs_is_computed_once(
    towers: tuple[nn.Module, gp.Graph, torch.Tensor],
) -> None:
    model, graph, x = towers
    folded = FoldConstants()(graph)
    for check in ("structure", "metadata", "polymorphism"):
        CHECKS[check](folded, graph)
    for size in (3, 5):
        for one, two in zip(folded(x[:, :size]), model(x[:, :size]), strict=True):
            assert one.equal(two)
    names = operators(folded)
    assert not {"gelu", "linear", "index.Tensor", "div.Tensor"} & set(names)
    assert "arange" in " ".join(names), "its length varies"
    stored = [name for name, _ in folded.weights.source.named_buffers() if "folded" in name]
    assert len(stored) == 1
    assert "tower.0.weight" not in dict(folded.weights.source.named_parameters())
    assert graph.weight_hash() != folded.weight_hash()


def test_a_copy_of_a_weight_is_not_stored(
    towers: tuple[nn.Module, gp.Graph, torch.Tensor],
) -> None:
    _, graph, _ = towers
    folded = FoldConstants()(graph)
    assert folded.weights.source.short.dtype == torch.float16
    assert folded.weights.source.short is graph.weights.source.short


def test_a_caller_may_write_to_what_is_returned(
    towers: tuple[nn.Module, gp.Graph, torch.Tensor],
) -> None:
    model, graph, x = towers
    folded = FoldConstants()(graph)
    with torch.no_grad():
        folded(x)[1].zero_()
        assert folded(x)[0].equal(model(x)[0])


def test_no_more_is_stored_than_the_limit(
    towers: tuple[nn.Module, gp.Graph, torch.Tensor],
) -> None:
    _, graph, _ = towers
    assert FoldConstants(limit=6 * 4 * 4 - 1)(graph).text == graph.text
    assert FoldConstants(limit=6 * 4 * 4)(graph).text != graph.text
    with pytest.raises(ProgramError, match="limit must be an integer of at least 0, not -1"):
        FoldConstants(limit=-1)


class Random(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(self.weight) * self.weight.exp()


def test_random_numbers_are_drawn_in_every_run() -> None:
    graph = gp.capture(Random().eval(), (torch.zeros(2, 4),))
    folded = FoldConstants()(graph)
    x = torch.zeros(3, 4)
    assert not folded(x).equal(folded(x))
    assert "exp" not in operators(folded)


def test_a_program_is_refused_and_stays_trainable_where_it_only_runs() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight.softmax(0)

    graph = gp.capture(Net().eval(), (torch.rand(2, 4),))
    task = gp.compile(graph, gp.Program([gp.Additive(squash="tanh")]))
    with pytest.raises(PassError, match="fold-constants changes the source"):
        FoldConstants()(task.graph)
    before = task.source_hash()
    running = with_constants(task.graph)
    x = torch.rand(3, 4)
    assert running(x).equal(task(x))
    assert "tanh" in operators(running)
    assert "softmax.int" not in operators(running)
    running(x).square().sum().backward()
    assert task.program.additive.value.grad.abs().sum() > 0
    assert task.source_hash() == before


@few
@given(network=networks(), data=st.data())
def test_frozen_programs_in_networks_are_exact(network: Network, data: st.DataObject) -> None:
    graph = gp.capture(network, (torch.randn(2, 4),))
    keys = data.draw(st.lists(st.sampled_from(sorted(graph.sites)), max_size=3, unique=True))
    parts = [
        gp.Additive(
            at=key, value=gp.Learnable("normal", shape=(4,)), squash=squash, name=f"part_{number}"
        )
        for number, key in enumerate(keys)
        for squash in [data.draw(st.sampled_from(["none", "tanh"]))]
    ]
    task = gp.compile(graph, gp.Program(parts))
    exact, rounded = gp.freeze(task), gp.freeze(task, exact=False)
    with torch.no_grad():
        assert exact(X).equal(task(X))
        torch.testing.assert_close(rounded(X), task(X), rtol=1e-5, atol=1e-5)
    for frozen in (exact, rounded):
        for check in ("structure", "metadata"):
            CHECKS[check](frozen, frozen)
    assert task.graph.text == gp.compile(graph, gp.Program(parts)).graph.text
