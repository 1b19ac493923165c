"""Parts that read other values: of interfaces, of the source's tensors, of other parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.errors import InterfaceError, ProgramError
from graphprog.passes.erase import EraseProgram
from tests.models.networks.corner import towers
from tests.models.zoo import CASES, captured
from tests.support import oracle
from tests.support.comparisons import same


class Blend(nn.Module):
    """x plus a map of something else, pooled over its tokens."""

    def __init__(self, width: int = 16, other: int = 16) -> None:
        super().__init__()
        self.map = nn.Linear(other, width)

    def forward(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return x + self.map(other.mean(-2, keepdim=True))


def test_a_part_reads_an_earlier_interface() -> None:
    model, graph = captured("transformer")
    _, kwargs = CASES["transformer"].call(3)
    blend = Blend()
    part = gp.Parametric(blend, at="hidden[2]", reads=("hidden[0]",))
    task = gp.compile(graph, gp.Program([part]))
    read = oracle.values_of(model, (), kwargs)["layers.0:out"]
    with torch.no_grad():
        expected = oracle.changed(model, {"layers.2:out": lambda x: blend(x, read)}, (), kwargs)
    assert same(task(**kwargs), expected)


def test_a_star_in_what_is_read_is_the_star_of_the_place() -> None:
    model, graph = captured("transformer")
    _, kwargs = CASES["transformer"].call(3)
    blend = Blend()
    part = gp.Parametric(blend, at="layers.*.mlp:out", reads=("layers.*.mlp:in",))
    task = gp.compile(graph, gp.Program([part]))
    entered: dict[str, torch.Tensor] = {}

    def visit(key: str, value: torch.Tensor) -> torch.Tensor:
        entered[key] = value
        place = key.removesuffix(":out")
        return blend(value, entered[place + ":in"]) if place in keys else value

    keys = [f"layers.{number}.mlp" for number in range(3)]
    with torch.no_grad(), oracle.visiting(model, visit):
        expected = model(**kwargs)
    assert same(task(**kwargs), expected)


class Gate(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * y.sigmoid().mean(-1, keepdim=True)


def test_what_is_read_may_be_computed_later() -> None:
    model, graph, (x, y) = towers()
    part = gp.Parametric(Gate(), at="first.0:out", reads=("second.1:out",))
    task = gp.compile(graph, gp.Program([part]))
    read = oracle.values_of(model, (x, y), {})["second.1:out"]
    expected = oracle.changed(model, {"first.0:out": lambda v: Gate()(v, read)}, (x, y), {})
    assert same(task(x, y), expected)
    assert EraseProgram().run(task.graph).text == graph.text


def test_what_is_read_may_not_depend_on_what_changes() -> None:
    _, graph, _ = towers()
    part = gp.Parametric(Gate(), at="first.0:out", reads=("first.1:out",))
    with pytest.raises(InterfaceError, match=r"first.0:out reads first.1:out, which is computed"):
        gp.compile(graph, gp.Program([part]))


class Tied(nn.Module):
    """x times a frozen matrix, scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x + self.gain * (x @ weight.T)


def test_a_part_reads_a_frozen_tensor_of_the_source() -> None:
    model, graph, (x, y) = towers()
    part = gp.Parametric(Tied(), at="first.1:out", reads=("source.first.0.weight",))
    task = gp.compile(graph, gp.Program([part]))
    weight = model.first[0].weight
    with torch.no_grad():
        change = {"first.1:out": lambda v: v + 0.5 * (v @ weight.T)}
        expected = oracle.changed(model, change, (x, y), {})
    assert same(task(x, y), expected)
    task(x, y).sum().backward()
    assert weight.grad is None
    assert task.program.parametric.gain.grad is not None


class Sharing(nn.Module):
    """Adds a vector, and lets others read twice of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.randn(width))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + self.vector, 2 * self.vector


class Derived(nn.Module):
    """Adds a linear map of another part's vector."""

    def __init__(self, other: int, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(other, width)

    def forward(self, x: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        return x + self.map(vector)


@pytest.mark.parametrize(("name", "factor"), [("program.text", 2), ("program.text.vector", 1)])
def test_a_part_derives_its_values_from_another_part(name: str, factor: int) -> None:
    model, graph, (x, y) = towers()
    shared, derived = Sharing(6), Derived(6, 8)
    # the second tower's part is computed later in the graph than the first tower
    parts = [
        gp.Parametric(shared, at="second.1:out", name="text"),
        gp.Parametric(derived, at="first.0:out", name="vision", reads=(name,)),
    ]
    task = gp.compile(graph, gp.Program(parts))
    with torch.no_grad():
        change = {
            "second.1:out": lambda v: v + shared.vector,
            "first.0:out": lambda v: v + derived.map(factor * shared.vector),
        }
        expected = oracle.changed(model, change, (x, y), {})
    assert same(task(x, y), expected)
    task(x, y).square().sum().backward()
    grown = {name for name, value in task.named_parameters() if value.grad is not None}
    assert grown == {"program.text.vector", "program.vision.map.weight", "program.vision.map.bias"}


@pytest.mark.parametrize(
    ("read", "error", "message"),
    [
        ("hidden[7]", InterfaceError, r"layers.1:out reads 'hidden\[7\]': this graph has no"),
        ("hidden[*]", ProgramError, r"'hidden\[\*\]' names several values where one is read"),
        ("source.layers.0.weigth", ProgramError, "(?s)no such tensor.*nearest names: source"),
        ("program.other", ProgramError, "(?s)no part 'other' yet; it has none.*earlier"),
        ("program.other.value", ProgramError, "no part 'other' yet"),
    ],
)
def test_what_cannot_be_read(read: str, error: type[Exception], message: str) -> None:
    _, graph = captured("transformer")
    part = gp.Parametric(Blend(), at="hidden[1]", reads=(read,))
    with pytest.raises(error, match=message):
        gp.compile(graph, gp.Program([part]))


def test_an_index_in_a_range_is_a_star() -> None:
    _, graph = captured("transformer")
    part = gp.Parametric(Blend(), at="hidden[1:3]", reads=("layers.*.mlp:in",))
    task = gp.compile(graph, gp.Program([part]))
    read = [
        graph.nodes[graph.interfaces()[f"layers.{number}.mlp:in"].node].name for number in (1, 2)
    ]
    for number, name in enumerate(read):
        users = task.graph.nodes[name].users
        owners = {user.meta.get("graphprog") for user in users}
        assert f"program.parametric_{number}" in owners
