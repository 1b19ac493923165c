"""A prompt computed once, beside the same graph without the pass and a loop over a prefix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import graphprog as gp
from graphprog.ir.graph import Graph
from graphprog.passes.once_per_step.once_per_step import OncePerStep
from graphprog.passes.selection.only_what_is_read import OnlyWhatIsRead, flops_saved
from graphprog.passes.verify import CHECKS
from tests.models.networks.token_networks import LENGTH, WIDTH, Tokens, token_networks

COUNT, WORDS = 2, 60
few = settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])


def config(kind: str) -> Any:
    small = {"vocab_size": WORDS, "bos_token_id": 1, "eos_token_id": 1}
    if kind == "gpt2":
        return transformers.GPT2Config(n_positions=32, n_embd=16, n_layer=2, n_head=2, **small)
    return transformers.LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        **small,
    )


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def decoder(request: pytest.FixtureRequest) -> tuple[Any, Graph]:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config(request.param))
    model = model.double().eval().requires_grad_(False)
    ids = torch.randint(WORDS, (2, 7))
    kwargs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
    return model, gp.capture(model, (), kwargs, axes)


def padded() -> tuple[Tensor, Tensor]:
    """Tokens of rows without padding, padded on the right, and on the left."""
    ids, mask = torch.randint(WORDS, (3, 9)), torch.ones(3, 9, dtype=torch.int64)
    mask[1, 6:], mask[2, :4] = 0, 0
    return ids, mask


def prompted(graph: Graph, align: Any = None) -> Any:
    prompt = gp.Concatenative(at="tokens", length=4, value=gp.Learnable("normal"))
    program = gp.Program([prompt], align=align) if align else gp.Program([prompt])
    task = gp.compile(graph, program)
    next(task.program.parameters()).data.normal_()
    return task


def with_a_prefix(model: Any, prompt: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Logits of a hand-written loop: the prompt runs once, its keys and values are a prefix."""
    first = model(inputs_embeds=prompt[None].to(model.dtype), use_cache=True)
    cache = first.past_key_values
    cache.batch_repeat_interleave(len(ids))
    count, length = len(prompt), ids.shape[1]
    seen = torch.cat([torch.ones(len(ids), count, dtype=mask.dtype), mask], 1)
    places = torch.arange(count, count + length)[None]
    found = model(input_ids=ids, attention_mask=seen, position_ids=places, past_key_values=cache)
    logits: Tensor = found.logits
    return logits


def same(graph: Graph, once: Graph, *inputs: Tensor, rtol: float = 1e-10) -> None:
    """Check values, and gradients of float inputs and of all that can be trained."""
    weights = [*graph.weights.program.parameters(), *graph.weights.source.parameters()]
    learned = [one for one in weights if one.requires_grad]
    results = []
    for one in (graph, once):
        taken = [x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
        flat = one.run(taken)
        leaves = [x for x in taken if x.requires_grad] + learned
        total = sum((y * y.detach().cos()).sum() for y in flat)
        found = torch.autograd.grad(total, leaves, allow_unused=True)
        results.append((flat, [torch.tensor(0.0) if g is None else g for g in found]))
    torch.testing.assert_close(*results, rtol=rtol, atol=rtol)


def test_beside_a_loop_over_a_prefix(decoder: tuple[Any, Graph]) -> None:
    model, graph = decoder
    task, source = prompted(graph), graph.fingerprint
    once = OncePerStep()(task.graph)
    (prompt,) = task.program.parameters()
    ids, mask = padded()
    weight = torch.randn(3, 9, WORDS, dtype=torch.float64) * mask[..., None]
    found = []
    for logits in (
        once.run([ids, mask])[0][:, 4:],
        with_a_prefix(model, prompt, ids, mask),
        task.graph.run([ids, mask])[0][:, 4:],
    ):
        (gradient,) = torch.autograd.grad((logits * weight).sum(), prompt)
        found.append((logits * mask[..., None], gradient))
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[0], found[2], rtol=1e-6, atol=1e-6)
    assert graph.fingerprint == source


def test_the_prompt_has_one_row(decoder: tuple[Any, Graph]) -> None:
    task = prompted(decoder[1], gp.LastToken())
    fewer = OnlyWhatIsRead()(task.graph)
    once = OncePerStep()(fewer)
    same(task.graph, once, *padded(), rtol=1e-6)
    counts = []
    ids = torch.randint(WORDS, (8, 4))
    for graph in (fewer, once):
        with FlopCounterMode(display=False) as counter:
            graph.run([ids, torch.ones_like(ids)])
        counts.append(counter.get_total_flops())
    assert counts[1] < 0.75 * counts[0]  # 4 positions of 8, for one row of 8


def test_training_runs_the_prompt_once(decoder: tuple[Any, Graph]) -> None:
    task = prompted(decoder[1], gp.LastToken())
    ids, mask = padded()
    whole = task.graph.run([ids, mask])[0]
    assert torch.equal(task(input_ids=ids, attention_mask=mask), whole)  # in evaluation
    assert "the prompt is computed once a step, with one row" in str(task.explain())
    task.train()
    torch.testing.assert_close(task(input_ids=ids, attention_mask=mask), whole)
    places = torch.tensor([[4, 12], [5, 9], [9, 10]])
    logits = prompted(decoder[1])
    found = logits.train().at(0, places, ids, mask)[0]
    every = logits.graph.run([ids, mask])[0]
    torch.testing.assert_close(found, every[torch.arange(3)[:, None], places])


def test_on_a_gpu_a_prompt_is_split_off_where_it_saves_more_than_launches_take(
    decoder: tuple[Any, Graph],
) -> None:
    task = prompted(decoder[1], gp.LastToken())
    running = task._running
    ids, _ = padded()
    assert running.graph_for([ids, ids]) is running.graph
    with FakeTensorMode():
        few, many = (torch.empty(rows, 8, dtype=ids.dtype, device="cuda") for rows in (8, 10**9))
    assert running.graph_for([few, few]) is not running.graph
    assert running.graph_for([many, many]) is running.graph


@pytest.mark.parametrize("labels", [False, True])
def test_a_prompt_after_a_token_for_the_beginning(decoder: tuple[Any, Graph], labels: bool) -> None:
    """Where rows begin alike, the token and the prompt are a prefix that is computed once."""
    model, graph = decoder
    prompt = gp.Concatenative(at="tokens", offset=1, length=4, value=gp.Learnable("normal"))
    task = gp.compile(graph, gp.Program([prompt]))
    (learned,) = task.program.parameters()
    learned.data.normal_()
    assert "where all rows begin with the same 1 entries" in str(task.explain())
    ids, mask = padded()
    ids[:, 0], mask[2] = 1, 1
    words = model.get_input_embeddings()
    weight = torch.randn(3, 8, WORDS, dtype=torch.float64) * mask[:, 1:, None]
    prefix = torch.cat([words(ids[:1, 0]), learned.to(model.dtype)])
    after = with_a_prefix(model, prefix, ids[:, 1:], mask[:, 1:])
    task.train()
    if labels:
        places = torch.arange(5, 13).expand(3, -1)
        found = task.at(0, places, ids, mask)
    else:
        found = task(input_ids=ids, attention_mask=mask)
    logits = getattr(found, "logits", found)[:, -8:]
    results = [
        (one * mask[:, 1:, None], *torch.autograd.grad((one * weight).sum(), learned))
        for one in (logits, after)
    ]
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-5)


def test_a_prompt_after_tokens_that_differ(decoder: tuple[Any, Graph]) -> None:
    prompt = gp.Concatenative(at="tokens", offset=2, length=3, value=gp.Learnable("normal"))
    task = gp.compile(decoder[1], gp.Program([prompt], align=gp.LastToken())).train()
    ids, mask = torch.randint(WORDS, (6, 7)), torch.ones(6, 7, dtype=torch.int64)
    costs = []
    for column in (slice(0, 2), slice(0, 1), slice(0, 0)):
        alike = ids.clone()
        alike[:, column] = ids[0, column]
        for seen in (mask, mask.index_fill(1, torch.tensor([0]), 0), mask.triu(-4)):
            torch.testing.assert_close(task(alike, seen), task.graph.run([alike, seen])[0])
            with FlopCounterMode(display=False) as counter:
                task(alike, seen)
            costs.append(counter.get_total_flops())
    whole = costs[-1]
    assert costs[0] < 0.8 * whole
    assert costs[2:] == [whole] * 7  # a row without its first token, or another one


class Prompted(nn.Module):
    """Entries of its own before those of samples, then a network over tokens."""

    def __init__(self, network: Callable[..., object]) -> None:
        super().__init__()
        self.prompt = nn.Parameter(torch.randn(COUNT, WIDTH, dtype=torch.float64))
        self.network = network

    def forward(self, x: Tensor, *others: Tensor) -> object:
        prompt = self.prompt.expand(x.shape[0], -1, -1)
        return self.network(torch.cat([prompt, x], 1), *others)


def samples(rows: int) -> Tensor:
    return torch.randn(rows, LENGTH - COUNT, WIDTH, dtype=torch.float64)


def with_steps(*steps: str) -> Tokens:
    torch.manual_seed(0)
    return Tokens([(step, False) for step in steps], "last").double().eval()


@few
@given(network=token_networks())
def test_random_networks_over_tokens(network: Tokens) -> None:
    graph = gp.capture(Prompted(network).eval(), (samples(3),))
    once = OncePerStep()(graph)
    for name in ("structure", "metadata", "polymorphism"):
        CHECKS[name](once, graph)
    same(graph, once, samples(4))


@pytest.mark.parametrize("first", ["attention", "written", "masked"])
def test_after_attention_to_samples_the_prompt_differs_between_rows(first: str) -> None:
    graph = gp.capture(Prompted(with_steps(first, "causal")).eval(), (samples(3),))
    same(graph, OncePerStep()(graph), samples(4))


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        (["linear", "causal", "linear"], "split"),
        (["norm", "causal", "rms", "causal", "gated"], "split"),
        (["places", "causal", "flattened", "cap"], "split"),
        (["causal", "mixing", "linear"], "split"),
        (["attention", "linear"], "the prompt attends to samples"),
        (["masked", "linear"], "not proved to hide samples"),
        (["hidden", "causal"], "split"),
        (["mixing", "causal"], "keys and values"),
        (["linear", "running", "linear"], ""),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_what_is_split_and_what_is_not(steps: list[str], found: str) -> None:
    graph = gp.capture(Prompted(with_steps(*steps)).eval(), (samples(3),))
    split = OncePerStep().split(graph)
    once, stops = split.graph, split.stops
    same(graph, once, samples(4))
    if found == "split":
        before, after = flops_saved(graph, once)
        assert after < before
    else:
        assert once is graph
        assert not found or any(found in stop.reason for stop in stops) or steps[0] == "mixing"


class Located(nn.Module):
    """A position embedding and causal attention, at positions that are given for each row."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(16, WIDTH, dtype=torch.float64)
        self.rest = with_steps("causal", "linear")

    def forward(self, x: Tensor, places: Tensor) -> object:
        return self.rest(x + self.table(places))


def test_positions_that_differ_between_rows_are_refused() -> None:
    places = torch.arange(LENGTH) + torch.arange(3)[:, None]
    graph = gp.capture(Prompted(Located()).eval(), (samples(3), places))
    found = OncePerStep().split(graph)
    once, stops = found.graph, found.stops
    assert once is graph
    assert any("differs between rows at the prompt" in stop.reason for stop in stops)


class Masked(nn.Module):
    """Causal attention with padding, which may reach the prompt."""

    def __init__(self, pads_prompt: bool) -> None:
        super().__init__()
        self.pads_prompt = pads_prompt

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        if not self.pads_prompt:
            seen = nn.functional.pad(seen, (COUNT, 0), value=1)
        numbers = torch.arange(x.shape[1])
        mask = (numbers <= numbers[:, None]) & seen.bool()[:, None]
        out = nn.functional.scaled_dot_product_attention(
            x[:, None], x[:, None], x[:, None], mask[:, None]
        )
        return out[:, 0] + x


@pytest.mark.parametrize("pads_prompt", [False, True])
def test_padding_of_samples_is_right_and_that_of_the_prompt_is_refused(pads_prompt: bool) -> None:
    length = LENGTH if pads_prompt else LENGTH - COUNT
    seen = torch.ones(4, length, dtype=torch.int64)
    graph = gp.capture(Prompted(Masked(pads_prompt)).eval(), (samples(4), seen))
    seen[1, :2], seen[2, -2:], seen[3, -1] = pads_prompt, 0, 0
    found = OncePerStep().split(graph)
    once, stops = found.graph, found.stops
    same(graph, once, samples(4), seen)
    assert (once is graph) == pads_prompt
    if pads_prompt:
        assert any("mask differs between rows" in stop.reason for stop in stops)


@few
@given(st.sampled_from(["linear", "gelu", "flattened"]))
def test_without_a_prompt_the_graph_stays(step: str) -> None:
    graph = gp.capture(with_steps(step, "causal"), (torch.randn(3, LENGTH, WIDTH).double(),))
    found = OncePerStep().split(graph)
    assert found.graph is graph
    assert not found.stops
