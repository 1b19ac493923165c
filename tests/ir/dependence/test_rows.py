"""Where rows lie, and that values which are called independent do not change, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.nn import functional

import graphprog as gp
from graphprog.ir.dependence.batch_rows import Interleaved, Mixed, Place
from graphprog.ir.dependence.classes import PROGRAM, SAMPLES
from graphprog.ir.fake import fake_tensor
from graphprog.ir.printing import operator_name
from graphprog.ir.sizes import expression, is_symbolic
from tests.models.networks.corner import Encoder
from tests.models.tiny_models import tiny

ROWS = 4
Function = Callable[[Tensor], Tensor]


class Calls(nn.Module):
    """The results of several functions of rows [5, 6]."""

    def __init__(self, functions: dict[str, Function]) -> None:
        super().__init__()
        self.functions = functions
        self.table = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: function(self.table * x) for name, function in self.functions.items()}


def number(x: Tensor) -> Tensor:
    return torch.arange(x.shape[0])


def outside(x: Tensor) -> Tensor:
    """The batch is second, as in nn.MultiheadAttention, and is merged with what comes before."""
    y = x.transpose(0, 1).reshape(-1, 6)
    return functional.linear(y, torch.ones(6, 6)).view(5, x.shape[0], 6)


INDEPENDENT: dict[str, Function] = {
    "slice of all": lambda x: x[:].sin(),
    "numbers of the rows": lambda x: x[number(x), x[:, 0, 0].abs().long().clamp(max=4)],
    "numbers in two axes": lambda x: x[number(x)[:, None], torch.arange(3)[None]],
    "index of another axis": lambda x: x[:, [2, 0]],
    "table": lambda x: torch.eye(6)[x[..., 0].abs().long().clamp(max=5)],
    "merged and split": lambda x: x.flatten(0, 1).unflatten(0, (-1, 5)),
    "merged with what comes before": outside,
    "moved": lambda x: x.movedim(0, 1).softmax(0),
    "interleaved": lambda x: x.repeat_interleave(2, 0).view(x.shape[0], 2, 5, 6),
    "gathered": lambda x: x.gather(1, x.abs().long().clamp(max=4)),
    "joined with one for all": lambda x: torch.cat([torch.ones(x.shape[0], 1, 6), x], 1),
    "repeated for all": lambda x: torch.cat([torch.ones(1, 1, 6).repeat(x.shape[0], 1, 1), x], 1),
    "product with itself": lambda x: x @ x.mT,
    "einsum": lambda x: torch.einsum("bnd,bmd->bnm", x, x),
    "sorted": lambda x: x.sort(1).values.topk(2).values,
    "norm": lambda x: functional.normalize(functional.layer_norm(x, (5, 6)), dim=-1),
    "padded": lambda x: functional.pad(x, (1, 2)),
    "one axis less": lambda x: x.mean(1).cumsum(1).amax(1),
    "differences": lambda x: x.diff(dim=1, prepend=x[:, :1] - 1),
    "written in place": lambda x: x.index_select(1, torch.tensor([1, 0])).unbind(1)[0],
}
MIXING: dict[str, tuple[Function, str]] = {
    "another row": (lambda x: x.roll(1, 0), "roll"),
    "reversed": (lambda x: x.flip(0), "flip"),
    "part of the batch": (lambda x: x[1:], "slice.Tensor"),
    "mean": (lambda x: x - x.mean((0, 1)), "mean.dim"),
    "mean of all": (lambda x: x - x.mean(), "mean"),
    "running sum": (lambda x: x.cumsum(0), "cumsum"),
    "product of rows": (lambda x: x.flatten(1) @ x.flatten(1).mT, "matmul"),
    "divided by the batch": (lambda x: x / x.shape[0], "div.Tensor"),
    "place in the batch": (lambda x: x + number(x)[:, None, None], "add.Tensor"),
    "regrouped": (lambda x: x.transpose(0, 1).reshape(x.shape[0], 5, 6), "reshape"),
    "largest class": (lambda x: x * (x.argmax() % 2), "argmax"),
    "training statistics": (
        lambda x: functional.batch_norm(x, None, None, training=True),
        "batch_norm",
    ),
    "softmax over rows": (lambda x: x.softmax(0), "softmax.int"),
    "rows of a table": (lambda x: x @ x.sum((0, 1)).unsqueeze(-1), "sum.dim_IntList"),
}


@cache
def traced(mixing: bool) -> gp.Graph:
    functions = {k: v[0] for k, v in MIXING.items()} if mixing else INDEPENDENT
    axes = {"x": {0: "batch"}}
    return gp.capture(Calls(functions), (torch.randn(3, 5, 6),), dynamic_axes=axes)


def test_rows_stay_apart() -> None:
    graph = traced(mixing=False)
    assert graph.explain().mixing() == []
    check(graph, [torch.randn(ROWS, 5, 6) * 3], row=1)


@pytest.mark.parametrize("name", MIXING)
def test_rows_that_mix_are_found(name: str) -> None:
    graph = traced(mixing=True)
    found = graph.explain()
    result = graph.output_nodes[graph.outputs.index(name)]
    assert "batch-mates" in found.classes[result]
    place = found.axes[result]
    assert isinstance(place, Mixed)
    assert operator_name(place.node) == MIXING[name][1]


@cache
def models() -> list[tuple[gp.Graph, tuple[str, ...]]]:
    """Graphs, with the names of inputs that hold tokens."""
    torch.manual_seed(0)
    ids = torch.ones(2, 5, dtype=torch.int64)
    axes = {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")}
    encoder = gp.capture(Encoder().eval(), (ids, ids), dynamic_axes=axes)
    program = gp.Program([gp.Concatenative(2, at="tokens")])
    graphs = [encoder, tiny("written-out-causal"), gp.compile(tiny("located"), program).graph]
    return [(graph, tuple(str(one.target) for one in graph.placeholders)) for graph in graphs]


@settings(max_examples=8)
@given(st.integers(0, 2), st.integers(2, 5), st.integers(3, 6), st.integers(0, 4), st.integers())
def test_what_is_independent_does_not_change(
    which: int, rows: int, length: int, row: int, seed: int
) -> None:
    graph, names = models()[which]
    generator = torch.Generator().manual_seed(seed % 2**31)
    values = {
        "ids": torch.randint(0, 10, (rows, length), generator=generator),
        "input_ids": torch.randint(0, 10, (rows, length), generator=generator),
        "attention_mask": torch.ones(rows, length, dtype=torch.int64),
    }
    check(graph, [values[name] for name in names], row % rows)


def check(graph: gp.Graph, inputs: list[Tensor], row: int) -> None:
    """Change one row, then the program: independent values are the same bits."""
    found = graph.explain()
    nodes = [
        node
        for node in graph.code.nodes
        if node.op == "call_function" and isinstance(node.meta.get("val"), Tensor) and node.users
    ]
    names = [node.name for node in nodes]
    before = graph.values_of(names, inputs)
    changed = [value.clone() for value in inputs]
    fresh = changed[0][row].flip(0) + 1
    changed[0][row] = fresh if fresh.is_floating_point() else fresh % 10
    after = graph.values_of(names, changed)
    counts = dict(sizes(graph, inputs))
    compared = 0
    for node, one, other in zip(nodes, before, after, strict=True):
        if SAMPLES not in found.classes[node]:
            assert torch.equal(one, other), node
        elif not isinstance(found.axes[node], Mixed):
            kept = [number for number in range(len(inputs[0])) if number != row]
            first, second = (of_rows(v, found.axes[node], kept, counts) for v in (one, other))
            assert torch.equal(first, second), node
            compared += 1
    assert compared
    if graph.insertions:
        check_program(graph, inputs, nodes, before)


def check_program(
    graph: gp.Graph, inputs: list[Tensor], nodes: list[fx.Node], before: tuple[Tensor, ...]
) -> None:
    found = graph.explain()
    parameters = list(graph.weights.program.parameters())
    with torch.no_grad():
        for one in parameters:
            one.add_(1)
        after = graph.values_of([node.name for node in nodes], inputs)
        for one in parameters:
            one.sub_(1)
    for node, one, other in zip(nodes, before, after, strict=True):
        if PROGRAM not in found.classes[node]:
            assert torch.equal(one, other), node
    assert any(PROGRAM in found.classes[node] for node in nodes)


def sizes(graph: gp.Graph, inputs: list[Tensor]) -> Iterator[tuple[object, int]]:
    for node, value in zip(graph.placeholders, inputs, strict=True):
        for size, count in zip(fake_tensor(node).shape, value.shape, strict=True):
            if is_symbolic(size):
                yield expression(size), count


def of_rows(value: Tensor, place: Place, rows: list[int], counts: dict[object, int]) -> Tensor:
    """The entries of all rows but one."""
    assert isinstance(place, int | Interleaved)
    axis = place if isinstance(place, int) else place.axis
    outer = 1 if isinstance(place, int) else int(place.outer.subs(counts))
    parts = value.unflatten(axis, (outer, len(rows) + 1, -1))
    return parts.index_select(axis + 1, torch.tensor(rows))
