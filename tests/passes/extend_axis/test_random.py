"""Properties of inserted entries on random small networks with branches, folds and attention."""

from __future__ import annotations

import dataclasses

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import graphprog as gp
from graphprog.errors import GraphprogError
from graphprog.ir.graph import Graph
from graphprog.passes.extend_axis.extend_axis import ExtendAxis
from graphprog.passes.verify import verify
from tests.models.prompts.inserted import told

LENGTH, WIDTH, HEADS = 4, 8, 2


@dataclasses.dataclass(frozen=True)
class Step:
    """One part: which earlier values it adds up, and what it does with the sum."""

    reads: tuple[int, ...]
    kind: str


POINTWISE = ("linear", "tanh", "batch-fold", "flatten", "head-fold", "tokens-first", "cls")
CAUSAL = ("flag", "triangle", "compared", "cumulative")
BOTH = ("attention", "softmax", "mean")


class Part(nn.Module):
    """What one step does with [B, S, d]; sizes are read off it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.small = nn.Linear(WIDTH // HEADS, WIDTH // HEADS)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = getattr(self, "_" + self.kind.replace("-", "_"))(x)
        return y

    def _linear(self, x: Tensor) -> Tensor:
        return self.linear(x)

    def _tanh(self, x: Tensor) -> Tensor:
        return x.tanh()

    def _batch_fold(self, x: Tensor) -> Tensor:
        return self.linear(x.reshape(-1, WIDTH)).view(x.shape)

    def _flatten(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def _head_fold(self, x: Tensor) -> Tensor:
        y = self._heads(x).reshape(-1, x.shape[1], WIDTH // HEADS)
        y = self.small(y).view(x.shape[0], HEADS, x.shape[1], -1)
        return y.transpose(1, 2).reshape(x.shape)

    def _tokens_first(self, x: Tensor) -> Tensor:
        y = x.transpose(0, 1).contiguous().view(x.shape[1] * x.shape[0], WIDTH)
        return self.linear(y).view(x.shape[1], x.shape[0], WIDTH).transpose(0, 1)

    def _cls(self, x: Tensor) -> Tensor:
        y = torch.cat([self.linear.bias.expand(x.shape[0], 1, -1), x], 1)
        return self.linear(y)[:, 1:]

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], HEADS, -1).transpose(1, 2)

    def _attend(self, x: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
        q, k = self._heads(x), self._heads(self.linear(x))
        y = functional.scaled_dot_product_attention(q, k, k, mask, is_causal=causal)
        return y.transpose(1, 2).reshape(x.shape)

    def _flag(self, x: Tensor) -> Tensor:
        return self._attend(x, None, causal=True)

    def _triangle(self, x: Tensor) -> Tensor:
        return self._attend(x, torch.ones(x.shape[1], x.shape[1]).tril().bool())

    def _compared(self, x: Tensor) -> Tensor:
        place = torch.arange(x.shape[1])
        return self._attend(x, place <= place[:, None])

    def _cumulative(self, x: Tensor) -> Tensor:
        return x.cumsum(1) / (torch.arange(x.shape[1]) + 1)[:, None]

    def _attention(self, x: Tensor) -> Tensor:
        return self._attend(x, None)

    def _softmax(self, x: Tensor) -> Tensor:
        return (x @ x.mT).softmax(-1) @ x

    def _mean(self, x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True)


class Network(nn.Module):
    """Every step adds its inputs and passes the sum through its part."""

    def __init__(self, steps: list[Step]) -> None:
        super().__init__()
        self.steps = steps
        self.parts = nn.ModuleList(Part(step.kind) for step in steps)

    def forward(self, x: Tensor) -> Tensor:
        return self.longer(x, ())

    def longer(self, x: Tensor, inserts: tuple[tuple[Tensor, int], ...]) -> Tensor:
        """Run, with entries inserted behind the first part, of which all others read."""
        values = [x]
        for step, part in zip(self.steps, self.parts, strict=True):
            total = values[step.reads[0]]
            for other in step.reads[1:]:
                total = total + values[other]
            values.append(part(total))
            if len(values) == 2:
                for new, offset in inserts:
                    values[1] = joined(values[1], new, offset)
        return values[-1]


def joined(x: Tensor, new: Tensor, offset: int) -> Tensor:
    at = x.shape[1] if offset == -1 else offset
    return torch.cat([x[:, :at], new.expand(len(x), -1, -1), x[:, at:]], 1)


@st.composite
def networks(draw: st.DrawFn, kinds: tuple[str, ...] = POINTWISE + CAUSAL + BOTH) -> Network:
    """Networks with one bottleneck behind the first step, where entries may be inserted."""
    steps = [Step((0,), draw(st.sampled_from(("linear", "tanh"))))]
    for number in range(1, draw(st.integers(2, 6))):
        reads = draw(st.lists(st.integers(1, number), min_size=1, max_size=3, unique=True))
        steps.append(Step(tuple(reads), draw(st.sampled_from(kinds))))
    torch.manual_seed(draw(st.integers(0, 5)))
    return Network(steps).eval().requires_grad_(False)


def capture(network: Network, varying: bool) -> Graph:
    axes = {"x": {0: "batch", 1: "sequence"}} if varying else None
    return gp.capture(network, (torch.randn(LENGTH, LENGTH, WIDTH),), dynamic_axes=axes)


def extended(
    graph: Graph, new: Tensor, offset: int, at: str = "parts.0:out", name: str = ""
) -> Graph:
    part = gp.Concatenative(at=at, name=name, length=len(new), offset=offset, value=gp.Fixed(new))
    return ExtendAxis(part)(graph)


def entries(count: int) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(count))


def some(batch: int, length: int) -> Tensor:
    return torch.randn(batch, length, WIDTH, generator=torch.Generator().manual_seed(length))


few = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@few
@given(network=networks(), varying=st.booleans(), count=st.integers(1, 4), data=st.data())
def test_the_graph_is_the_network_on_a_longer_sequence(network, varying, count, data) -> None:
    graph = capture(network, varying)
    new, offset = entries(count), data.draw(st.sampled_from((0, 1, 3, -1)))
    longer = extended(graph, new, offset)
    verify(longer, graph)
    x = some(3, 6 if varying else LENGTH)
    assert torch.equal(longer(x), network.longer(x, ((new, offset),)))


@few
@given(network=networks(), varying=st.booleans(), offset=st.sampled_from((0, 2, -1)))
def test_no_entries_change_nothing(network, varying: bool, offset: int) -> None:
    graph = capture(network, varying)
    same = extended(graph, entries(0), offset)
    verify(same, graph)
    x = some(3, LENGTH)
    assert torch.equal(same(x), network(x))


@few
@given(network=networks(POINTWISE + CAUSAL), varying=st.booleans(), count=st.integers(1, 3))
def test_what_causal_structure_forbids_to_see_changes_nothing(network, varying, count) -> None:
    graph = capture(network, varying)
    longer = extended(graph, entries(count), -1)
    x = some(3, LENGTH)
    torch.testing.assert_close(longer(x)[:, :LENGTH], network(x), rtol=1e-5, atol=1e-5)


@few
@given(network=networks(), varying=st.booleans())
def test_independent_insertions_commute(network, varying: bool) -> None:
    """At one place, in front and at the end, in either order."""
    graph = capture(network, varying)
    first, last = entries(1), entries(2)
    x = some(3, LENGTH)
    one = extended(extended(graph, first, 0, name="first"), last, -1, name="last")
    two = extended(extended(graph, last, -1, name="last"), first, 0, name="first")
    for result in (one, two):
        verify(result, graph)
    assert torch.equal(one(x), two(x))
    assert torch.equal(one(x), network.longer(x, ((first, 0), (last, -1))))


@few
@given(network=networks(), data=st.data())
def test_only_what_the_cut_reaches_changes(network, data) -> None:
    graph = capture(network, varying=True)
    key = data.draw(st.sampled_from(sorted(graph.sites)))
    place = graph.interfaces()[key]
    try:
        longer = ExtendAxis(gp.Concatenative(at=key, length=2, offset=1))(graph)
    except GraphprogError as error:
        told(error)
        return
    verify(longer, graph)
    reached = {edge.user for edge in place.edges}
    for node in graph.code.nodes:
        if any(part.name in reached for part in node.all_input_nodes):
            reached.add(node.name)
    for name, node in graph.nodes.items():
        if name not in reached:
            assert str(longer.nodes[name].args) == str(node.args)
            assert str(longer.nodes[name].meta["val"]) == str(node.meta["val"])
