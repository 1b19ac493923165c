"""Instruments at values inside attention, against hooks on the model itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import graphprog as gp
from graphprog.compiler.steering import with_steering
from tests.models.zoo import captured

RIGHT, WRONG = 7, 11
Pair = tuple[Any, gp.Graph, dict[str, Tensor], dict[str, Tensor]]


def score(logits: Tensor) -> Tensor:
    return logits[:, -1, RIGHT] - logits[:, -1, WRONG]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    model, graph = captured("gpt2")
    ids = torch.randint(1, 90, (1, 6), generator=torch.Generator().manual_seed(1))
    other = ids.clone()
    other[0, 2] = 55
    calls = [{"input_ids": one, "attention_mask": torch.ones_like(ids)} for one in (ids, other)]
    model.set_attn_implementation("eager")  # so that its weights can be changed
    yield model, graph, *calls
    model.set_attn_implementation("sdpa")


class ChangedWeights(torch.overrides.TorchFunctionMode):
    """Changes the weights of the attention of one layer, the result of its softmax."""

    def __init__(self, layer: int, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.left = layer
        self.change = change

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if getattr(function, "__name__", "") == "softmax":
            self.left -= 1
            return self.change(result) if self.left == -1 else result
        return result


@contextmanager
def changed_heads(model: Any, layer: int, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Change the heads [B, S, H, d] that the output projection of a layer reads."""
    heads = model.config.n_head

    def hook(_module: Any, given: tuple[Tensor]) -> tuple[Tensor]:
        return (change(given[0].unflatten(-1, (heads, -1))).flatten(-2),)

    handle = model.transformer.h[layer].attn.c_proj.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def run(model: Any, call: dict[str, Tensor]) -> Tensor:
    logits: Tensor = model(**call, use_cache=False).logits
    return logits


def put(source: Tensor, *index: Any) -> Callable[[Tensor], Tensor]:
    """Return a change that takes some entries from another value."""

    def change(value: Tensor) -> Tensor:
        value = value.clone()
        value[index] = source[index]
        return value

    return change


def effect(patched: Tensor, ends: list[Tensor]) -> float:
    return float((score(patched) - ends[1]) / (ends[0] - ends[1]))


@torch.no_grad()
def test_heads_and_weights_are_cells_of_a_map(pair: Pair) -> None:
    model, graph, clean, corrupt = pair
    ends = [score(run(model, call)) for call in (clean, corrupt)]
    kept: dict[str, Tensor] = {}
    with (
        changed_heads(model, 1, lambda value: kept.setdefault("heads", value)),
        ChangedWeights(1, lambda value: kept.setdefault("weights", value)),
    ):
        run(model, clean)
    heads = gp.patch(graph, clean, corrupt, at="attention[1].heads[*]", metric=score)
    weights = gp.patch(graph, clean, corrupt, at="attention[1].weights", metric=score, heads="each")
    assert heads.names == ("attention[1].heads[0]", "attention[1].heads[1]")
    assert weights.effects.shape == (1, 6, 2)
    for head in range(2):
        for position in (2, 4, 5):
            with changed_heads(model, 1, put(kept["heads"], 0, position, head)):
                expected = effect(run(model, corrupt), ends)
            assert float(heads.effects[head, position]) == pytest.approx(expected, abs=2e-3)
            with ChangedWeights(1, put(kept["weights"], 0, head, position)):
                expected = effect(run(model, corrupt), ends)
            assert float(weights.effects[0, position, head]) == pytest.approx(expected, abs=2e-3)


def test_attribution_is_the_derivative(pair: Pair) -> None:
    model, graph, clean, corrupt = pair
    found = gp.attribute(graph, clean, corrupt, at="attention[*].weights", metric=score)
    with torch.no_grad():
        ends = [score(run(model, call)) for call in (clean, corrupt)]
        given, lost = (
            model(**call, use_cache=False, output_attentions=True).attentions
            for call in (clean, corrupt)
        )
    for layer in range(3):
        shift = torch.zeros_like(lost[layer], requires_grad=True)
        with ChangedWeights(layer, lambda value: value + shift):  # noqa: B023
            total = score(run(model, corrupt)).sum()
        slope = torch.autograd.grad(total, shift)[0]
        expected = (slope * (given[layer] - lost[layer])).sum((1, 3))[0] / (ends[0] - ends[1])
        torch.testing.assert_close(found.effects[layer], expected.float(), rtol=1e-3, atol=1e-4)


def test_a_passage_through_a_head(pair: Pair) -> None:
    """A head after the patched value passes something on, one before it nothing."""
    _, graph, clean, corrupt = pair
    options: dict[str, Any] = {"at": "hidden[0]", "metric": score}
    passing = gp.patch(graph, clean, corrupt, through="attention[1].heads[0]", **options)
    late = gp.patch(graph, clean, corrupt, through="attention[0].heads[0]", **options)
    assert float(passing.effects.abs().max()) > 1e-4
    assert float(late.effects.abs().max()) < 1e-5


@torch.no_grad()
def test_a_head_is_steered(pair: Pair) -> None:
    model, graph, clean, _ = pair
    steered = with_steering(gp.compile(graph, gp.Program()), ["attention[1].heads[0]"])
    vector = torch.linspace(-1, 1, 16)

    def change(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, :, 0] += 2 * vector
        return value

    with changed_heads(model, 1, change):
        expected = run(model, clean)
    given = {"vector_attention_1_heads_0": vector[None], "strength": torch.tensor(2.0)}
    found = steered(**clean, **given, use_cache=False)["logits"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_comparison_and_lens(pair: Pair) -> None:
    model, graph, clean, corrupt = pair
    shift = gp.Additive(at="hidden[0]", value=gp.Fixed(torch.linspace(-3, 3, 32)))
    task = gp.compile(graph, gp.Program([shift]))
    names = ["attention[0].weights", "attention[1].weights"]
    found = gp.compare(graph, task, clean, at=names)
    assert [row.name for row in found.rows] == names
    assert found.parts_at(0.0) == names[1]
    rows = torch.cat([clean["input_ids"], corrupt["input_ids"]])
    call = {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
    lens = gp.lens(graph, at=["attention[2].heads[0]", "attention[2].heads[1]"])
    with torch.no_grad():
        expected = run(model, call)
    torch.testing.assert_close(lens(call)["attention[2].heads[1]"], expected, rtol=1e-4, atol=1e-4)


def test_grad_cam_of_a_head() -> None:
    model, graph = captured("bert")
    mask = torch.ones(2, 6, dtype=torch.int64)
    ids = torch.arange(12).reshape(2, 6)
    found = gp.instruments.grad_cam(graph, (ids, mask), "attention[1].heads[1]", target=2)
    kept: list[Tensor] = []

    def hook(_module: Any, _given: Any, result: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        kept.append(result[0].detach().requires_grad_())
        return (kept[0], *result[1:])

    handle = model.bert.encoder.layer[1].attention.self.register_forward_hook(hook)
    logits = model(ids, mask).logits
    handle.remove()
    slope = torch.autograd.grad(logits[:, 2].sum(), kept[0])[0]
    value, slope = (one.unflatten(-1, (2, -1))[:, :, 1].detach() for one in (kept[0], slope))
    expected = (slope.mean(1, keepdim=True) * value).sum(-1).relu()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    assert found.any()
