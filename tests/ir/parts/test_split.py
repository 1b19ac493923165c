"""Parts of about equal cost, which run one after another like the whole, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch.utils import _pytree as pytree

from graphprog.errors import ProgramError
from graphprog.ir.parts.cost import flops_of
from tests.models.decoder_models import towers_call, two_towers
from tests.models.zoo import CASES, captured, cases


@pytest.mark.parametrize("name", cases(["residual", "torchvision-resnet18", "bert", "dictionary"]))
@pytest.mark.parametrize("count", [2, 3])
def test_parts_are_the_whole(name: str, count: int) -> None:
    graph, (args, kwargs) = captured(name)[1], CASES[name].call(3)
    parts = graph.split(count)
    assert len(parts) == count
    found, expected = (pytree.tree_leaves(one(*args, **kwargs)) for one in (parts, graph))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_parts_cost_about_the_same() -> None:
    graph = captured("bert")[1]
    costs = [sum(flops_of(part.code).values()) for part in graph.split(3)]
    assert sum(costs) == sum(flops_of(graph.code).values())
    assert max(costs) < 1.25 * sum(costs) / 3


def test_an_encoder_with_a_decoder() -> None:
    _, graph = two_towers("t5")
    parts = graph.split(4)
    call = {**towers_call("t5", 2, 5, 4), "use_cache": False}
    for one, other in zip(
        pytree.tree_leaves(parts(**call)), pytree.tree_leaves(graph(**call)), strict=True
    ):
        assert torch.equal(one, other)


def test_flops_are_those_of_the_products() -> None:
    graph = captured("torchvision-resnet18")[1]
    (args, _), batch = CASES["torchvision-resnet18"].call(2), 2
    counted = 0
    for node in graph.code.nodes:
        if node.op == "call_function" and "conv2d" in str(node.target):
            out, weight = (graph.nodes[one].meta["val"] for one in (node.name, node.args[1].name))
            counted += 2 * batch * out[0].numel() * weight[0].numel()
        elif node.op == "call_function" and "linear" in str(node.target):
            counted += 2 * batch * node.args[1].meta["val"].numel()
    assert args[0].shape[0] == batch
    assert sum(flops_of(graph.code).values()) == counted


def test_what_cannot_be_split() -> None:
    graph = captured("residual")[1]
    with pytest.raises(ProgramError, match="cannot be split in 99 parts"):
        graph.split(99)
    with pytest.raises(ProgramError, match="1 part or more"):
        graph.split(0)
