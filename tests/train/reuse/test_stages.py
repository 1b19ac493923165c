"""A task in two stages is the task, bit for bit, with its gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.ir.printing import operator_name
from graphprog.train.reuse.boundary import boundary_of
from graphprog.train.reuse.stages import Stages
from tests.models.networks.corner import Encoder
from tests.models.tiny_models import tiny
from tests.models.zoo import captured

STEER = gp.Learnable("normal")


def residual(*parts: gp.Manipulation, **rest: object) -> gp.ReprogrammedModel:
    return gp.compile(captured("residual")[1], gp.Program(list(parts), **rest))


@cache
def encoder() -> gp.Graph:
    torch.manual_seed(0)
    ids = torch.ones(2, 5, dtype=torch.int64)
    axes = {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")}
    return gp.capture(Encoder().eval(), (ids, ids), dynamic_axes=axes)


TASKS: dict[str, Callable[[], gp.ReprogrammedModel]] = {
    "head": lambda: residual(align=gp.LinearHead(4, at="features")),
    "pattern inside": lambda: residual(
        gp.Additive(at="hidden[1]", value=gp.Learnable("normal", shape=(8, 1, 1)))
    ),
    "map": lambda: residual(align=gp.FrequencyMap(4)),
    "pattern and head": lambda: residual(
        gp.Additive(at="hidden[2]", value=STEER), align=gp.LinearHead(4, at="features")
    ),
    "text": lambda: gp.compile(
        encoder(),
        gp.Program([gp.Additive(at="hidden[1]", value=gp.Learnable("normal", shape=(16,)))]),
    ),
}
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
INPUTS = {"text": (torch.arange(15).view(3, 5), MASK)}


@pytest.mark.parametrize("name", TASKS)
def test_two_stages_are_the_task(name: str) -> None:
    task = TASKS[name]()
    stages = Stages.of(task.graph)
    assert isinstance(stages, Stages)
    inputs = INPUTS.get(name, (torch.randn(3, 3, 16, 16),))
    kept = stages.first(inputs)
    assert all(len(one) == 3 and not one.requires_grad for one in kept)
    whole, (rest, _) = task(*inputs), stages.rest(kept, read=False, training=False)
    assert torch.equal(whole, rest)
    parameters = [one for one in task.program.parameters() if one.requires_grad]
    if parameters:
        first, second = (torch.autograd.grad(one.sum(), parameters) for one in (whole, rest))
        assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))
    if task.alignment is not None:
        for one, two in zip(
            task.both(*inputs), stages.rest(kept, read=True, training=False), strict=True
        ):
            assert torch.equal(one, two)


def kept_names(task: gp.ReprogrammedModel) -> list[str]:
    found = boundary_of(task.graph)
    assert not isinstance(found, str)
    return [operator_name(node) if node.op == "call_function" else node.op for node in found]


def test_the_fewest_bytes_after_the_last_product_are_kept() -> None:
    assert kept_names(TASKS["head"]()) == ["mean.dim"]
    assert kept_names(TASKS["pattern inside"]()) == ["relu"]
    assert kept_names(TASKS["map"]()) == ["linear"]
    assert kept_names(TASKS["text"]()) == ["placeholder", "add.Tensor"]  # the mask as it came


class Doubled(nn.Module):
    """Features are twice as wide as what they are made from, without a product."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 8), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.body(x)
        return self.head(torch.cat([hidden, -hidden], 1))


def test_what_is_wide_and_cheap_is_computed_again() -> None:
    graph = gp.capture(Doubled(), (torch.rand(2, 6),))
    task = gp.compile(graph, gp.Program(align=gp.LinearHead(2, at="features")))
    assert kept_names(task) == ["linear"]


class Centered(Doubled):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x - x.mean(0))


def test_why_nothing_is_kept() -> None:
    framed = residual(gp.Additive(), align=gp.LinearHead(4, at="features"))
    assert Stages.of(framed.graph) == "the program acts before the first product"
    graph = gp.capture(Centered(), (torch.rand(2, 6),))
    mixing = gp.compile(graph, gp.Program(align=gp.LinearHead(2, at="features")))
    assert Stages.of(mixing.graph) == "rows may mix: mean.dim"
    prompt = gp.compile(tiny("reader"), gp.Program([gp.Concatenative(3, at="tokens")]))
    assert Stages.of(prompt.graph) == "the program acts before the first product"
