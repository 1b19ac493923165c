"""Published methods: parameters counted by their formulas, fresh ones equal to the source."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import graphprog as gp
from tests.models.zoo import CASES, captured
from tests.support.comparisons import same

gpt2 = pytest.mark.xdist_group("gpt2")


def compiled(name: str, parts: tuple[gp.Manipulation, ...]) -> gp.ReprogrammedModel:
    _, graph = captured(name)
    return gp.compile(graph, gp.Program(parts))


def is_source(task: gp.ReprogrammedModel, name: str) -> bool:
    args, kwargs = CASES[name].call(3)
    return same(task(*args, **kwargs), task.base(*args, **kwargs))


@gpt2
def test_ia3_scales_keys_values_and_inner_activations() -> None:
    block = "transformer.h.*"
    parts = gp.methods.ia3(f"{block}.attn.c_attn:out", "", f"{block}.mlp.c_proj:in")
    task = compiled("gpt2", parts)
    assert task.trained_parameters() == 3 * (3 * 32 + 4 * 32)
    assert is_source(task, "gpt2")
    names = {name.split(".")[1] for name in task.program_state()}
    assert names == {f"{kind}_{i}" for kind in ("keys", "feed_forward") for i in range(3)}


@gpt2
def test_adapters_as_published() -> None:
    block, width, inner = "transformer.h.*", 32, 2
    bottleneck = 2 * width * inner + inner + width
    attention, feed_forward = f"{block}.attn.c_proj:out", f"{block}.mlp:out"
    houlsby = compiled("gpt2", gp.methods.houlsby(attention, feed_forward))
    assert houlsby.trained_parameters() == 2 * 3 * bottleneck
    pfeiffer = compiled("gpt2", gp.methods.pfeiffer(feed_forward))
    assert pfeiffer.trained_parameters() == 3 * bottleneck
    parallel = compiled("gpt2", gp.methods.parallel_adapter(feed_forward, f"{block}.mlp:in"))
    assert parallel.trained_parameters() == 3 * (2 * width * 16 + 16 + width)
    assert all(is_source(task, "gpt2") for task in (houlsby, pfeiffer, parallel))


@pytest.mark.slow
@pytest.mark.xdist_group("llama")
def test_llama_adapter_has_a_prompt_and_a_gate_for_every_head() -> None:
    layer = "model.layers.*.self_attn"
    parts = gp.methods.llama_adapter(
        attended=f"{layer}.o_proj:in",
        queries=f"{layer}.q_proj:out",
        keys=(f"source.{layer}.k_proj.weight",),
        values=(f"source.{layer}.v_proj.weight",),
        heads=4,
        rotary=("model.rotary_emb:out[0]", "model.rotary_emb:out[1]"),
    )
    task = compiled("llama", parts)
    assert task.trained_parameters() == 2 * (10 * 32 + 4)
    assert is_source(task, "llama")


class Nodes(nn.Module):
    """One round of messages over a dense graph, and a mean over its nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.message = nn.Linear(6, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, nodes: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(edges @ self.message(nodes)))


def test_prompts_of_nodes() -> None:
    torch.manual_seed(0)
    model = Nodes().eval().requires_grad_(False)
    axes = {"nodes": {0: "nodes"}, "edges": {0: "nodes", 1: "nodes"}}
    graph = gp.capture(model, (torch.randn(5, 6), torch.rand(5, 5)), None, axes)
    nodes, edges = torch.randn(7, 6), torch.rand(7, 7)
    task = gp.compile(graph, gp.Program(gp.methods.gpf(6, at="input:nodes")))
    vector = task.program_state()["program.gpf.value"]
    assert vector.shape == (6,)
    assert 0 < vector.abs().max() <= math.sqrt(6 / 7)
    torch.testing.assert_close(task(nodes, edges), model(nodes + vector, edges))
    plus = gp.compile(graph, gp.Program(gp.methods.gpf_plus(4, at="input:nodes")))
    assert plus.trained_parameters() == 4 * 6 + 4 * 6 + 4
    own = {name: torch.randn_like(value) for name, value in plus.program_state().items()}
    plus.load_program_state(own)
    names = ("value", "weigh.weight", "weigh.bias")
    vectors, weight, bias = (own[f"program.gpf_plus.{name}"] for name in names)
    mixed = (nodes @ weight.T + bias).softmax(-1) @ vectors
    torch.testing.assert_close(plus(nodes, edges), model(nodes + mixed, edges))
    scaled = gp.compile(graph, gp.Program(gp.methods.graph_prompt("head:in")))
    assert scaled.trained_parameters() == 8
    assert same(scaled(nodes, edges), graph(nodes, edges))
    (factors,) = (torch.randn_like(value) for value in scaled.program_state().values())
    scaled.load_program_state(dict.fromkeys(scaled.program_state(), factors))
    read = torch.relu(edges @ model.message(nodes)) * factors
    torch.testing.assert_close(scaled(nodes, edges), model.head(read))


def test_masks_and_generated_prompts_for_images() -> None:
    task = compiled("residual", gp.methods.smm())
    assert task.trained_parameters() == 26_499 + 3 * 16 * 16
    assert is_source(task, "residual")
    encoder = nn.Sequential(nn.Conv2d(3, 5, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    task = compiled("residual", gp.methods.blackvip(encoder, (-4.0, 4.0), strength=0.2))
    (x,), _ = CASES["residual"].call(3)
    assert not is_source(task, "residual")
    with task.disabled():
        assert same(task(x), task.base(x))


def test_text_models_that_read_something_else() -> None:
    mask = torch.ones(2, 7, dtype=torch.int64)
    series = compiled("transformer", gp.methods.time_llm(prototypes=20))
    assert series(torch.randn(2, 8 * 7), mask).shape == (2, 5)
    for parts in (gp.methods.reprogbert(20), gp.methods.r2dl(20, top=4)):
        task = compiled("transformer", parts)
        assert task.trained_parameters() == 20 * 100
        assert task(torch.randint(0, 20, (2, 7)), mask).shape == (2, 5)
