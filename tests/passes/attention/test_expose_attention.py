"""Values inside attention, against a softmax written by hand in the model."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import graphprog as gp
from graphprog.analysis.attention import attentions
from graphprog.errors import InterfaceError
from graphprog.passes import ExposeAttention
from graphprog.passes.verify import verify
from tests.models.attention_models import HEAD, HEADS, MATCHED, SMALLEST, Written, causal, inputs
from tests.models.tiny_models import tiny
from tests.models.zoo import CASES, captured

Parts = tuple[Tensor, Tensor, Tensor]
Mask = Callable[[Tensor, Tensor], Tensor]


def _seen(q: Tensor, mask: Tensor) -> Tensor:
    """Queries before the first token that is there may read no key."""
    return causal(q.shape[2]) & (mask[:, None, None] > 0)


FUSED: dict[str, Callable[[Parts, Tensor], tuple[Parts, Tensor | None, dict[str, Any]]]] = {
    "plain": lambda parts, mask: (parts, None, {}),
    "causal": lambda parts, mask: (parts, None, {"is_causal": True}),
    "scaled": lambda parts, mask: (parts, None, {"scale": 0.7}),
    "bool mask, rows without a key": lambda parts, mask: (parts, _seen(parts[0], mask), {}),
    "-inf": lambda parts, mask: (
        parts,
        torch.where(_seen(parts[0], mask), 0.0, -torch.inf).to(parts[0].dtype),
        {},
    ),
    "smallest number": lambda parts, mask: (
        parts,
        (1 - mask[:, None, None].to(parts[0].dtype)) * SMALLEST / 4,
        {},
    ),
    "grouped keys": lambda parts, mask: (
        (parts[0], parts[1][:, :2], parts[2][:, :2]),
        None,
        {"enable_gqa": True, "is_causal": True},
    ),
    "one value": lambda parts, mask: ((parts[0],) * 3, _seen(parts[0], mask), {}),
    "fewer queries": lambda parts, mask: ((parts[0][:, :, :1], *parts[1:]), None, {}),
}
"""Operands, mask and options of the fused operation."""


class Fused(Written):
    """Attention by the fused operation."""

    def __init__(self, form: str) -> None:
        def weigh(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
            parts, bias, options = FUSED[form]((q, k, v), mask)
            y = functional.scaled_dot_product_attention(*parts, bias, **options)
            return y.expand(-1, -1, q.shape[2], -1)

        super().__init__(weigh)


class ByHand:
    """Attention by the formula: softmax(q k^T * scale + mask) v, with changes inside of it."""

    def __init__(self, form: str, changes: dict[str, Callable[[Tensor], Tensor]]) -> None:
        self.form = form
        self.changes = changes
        self.found: dict[str, Tensor] = {}

    def _changed(self, name: str, value: Tensor) -> Tensor:
        self.found[name] = self.changes.get(name, lambda same: same)(value)
        return self.found[name]

    def __call__(self, model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        length = q.shape[2]
        parts, bias, options = FUSED[self.form]((q, k, v), mask)
        names = ("queries", "keys", "values")
        q, k, v = (self._changed(*one) for one in zip(names, parts, strict=True))
        groups = [head * k.shape[1] // HEADS for head in range(HEADS)]
        scores = q @ k[:, groups].mT * options.get("scale", 1 / math.sqrt(HEAD))
        if options.get("is_causal"):
            bias = causal(length)
        if bias is not None:
            hidden = bias if bias.dtype != torch.bool else torch.where(bias, 0.0, -torch.inf)
            scores = scores + hidden.to(scores)
        weights = self._changed("weights", scores.softmax(-1).nan_to_num(0.0))
        heads = [
            self._changed(f"heads[{head}]", weights[:, head] @ v[:, group])
            for head, group in enumerate(groups)
        ]
        return torch.stack(heads, 1).expand(-1, -1, length, -1)


def by_hand(
    form: str, model: Any, call: Any, changes: dict[str, Callable[[Tensor], Tensor]] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Result and inner values of the model with attention written by hand."""
    attend = ByHand(form, changes or {})
    own, model.weigh = model.weigh, attend
    try:
        with torch.no_grad():
            return model(*call), attend.found
    finally:
        model.weigh = own


@functools.cache
def fused(form: str, dtype: torch.dtype = torch.float32) -> tuple[Any, gp.Graph]:
    """A model of one attention, and its graph for any batch and length."""
    torch.manual_seed(0)
    model = Fused(form).eval().requires_grad_(False).to(dtype)
    axes = {"x": {0: "batch", 1: "sequence"}, "mask": {0: "batch", 1: "sequence"}}
    x, mask = inputs(2, 9)
    return model, gp.capture(model, (x.to(dtype), mask), dynamic_axes=axes)


EVERY = [f"attention[0].{part}" for part in ("queries", "keys", "values", "weights", "heads[*]")]


@pytest.mark.parametrize("form", FUSED)
def test_values_are_those_of_the_formula(form: str) -> None:
    model, graph = fused(form)
    exposed = ExposeAttention(tuple(EVERY))(graph)
    verify(exposed, exposed)
    assert [len(attentions(one.code)) for one in (graph, exposed)] == [1, 0]
    for batch, length in ((2, 9), (5, 3), (1, 20)):
        call = inputs(batch, length)
        result, expected = by_hand(form, model, call)
        torch.testing.assert_close(exposed(*call), result, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(exposed(*call), graph(*call), rtol=1e-5, atol=1e-5)
        values = gp.record(graph, call, at=EVERY)
        assert {name.removeprefix("attention[0].") for name in values} == set(expected)
        for name, value in expected.items():
            torch.testing.assert_close(values[f"attention[0].{name}"], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("form", "parts"),
    [
        ("one value", ("queries", "keys", "values", "weights", "heads[2]")),
        ("grouped keys", ("keys", "values")),
        ("bool mask, rows without a key", ("weights",)),
    ],
)
def test_each_part_can_be_changed_alone(form: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    model, graph = fused(form)
    call = inputs(3, 5)
    for part in parts:
        name = f"attention[0].{part}"
        vector = torch.full((1,), 0.3) if part == "weights" else torch.linspace(-1, 1, HEAD)
        task = gp.compile(graph, gp.Program([gp.Additive(at=name, value=gp.Fixed(vector))]))
        changes = {part: lambda value, shift=vector: value + shift}
        expected, inner = by_hand(form, model, call, changes)
        torch.testing.assert_close(task(*call), expected, rtol=1e-5, atol=1e-5)
        found = gp.record(task, call, at=name)[name]
        torch.testing.assert_close(found, inner[part], rtol=1e-5, atol=1e-6)
        with task.disabled():
            assert torch.equal(task(*call), graph(*call))
    gp.save(task, tmp_path / "head.safetensors")
    assert torch.equal(gp.load(tmp_path / "head.safetensors", graph)(*call), task(*call))


def test_the_weights_of_a_query_without_keys_have_finite_gradients() -> None:
    _, graph = fused("-inf")
    parts = [gp.Additive(at=f"attention[0].{part}") for part in ("queries", "keys", "weights")]
    shapes = [(HEAD,), (HEAD,), (HEADS, 1, 1)]
    values = [gp.Learnable(shape=shape) for shape in shapes]
    task = gp.compile(
        graph,
        gp.Program(
            [gp.Additive(at=part.at, value=v) for part, v in zip(parts, values, strict=True)]
        ),
    )
    task(*inputs(3, 5)).square().sum().backward()
    for name, value in task.named_parameters():
        if value.requires_grad:
            assert value.grad is not None, name
            assert value.grad.isfinite().all(), name
            assert value.grad.any(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    model, graph = fused("one value", dtype)
    x, mask = inputs(2, 9)
    call = (30 * x.to(dtype), mask)  # products of queries and keys beyond the range of float16
    exposed = ExposeAttention(tuple(EVERY))(graph)
    weights = gp.record(graph, call, at="attention[0].weights")["attention[0].weights"]
    assert weights.dtype == dtype
    close = 3 * torch.finfo(dtype).eps
    torch.testing.assert_close(exposed(*call), graph(*call), rtol=close, atol=100 * close)
    _, inner = by_hand("one value", copy.deepcopy(model).double(), (call[0].double(), mask))
    torch.testing.assert_close(weights.double(), inner["weights"], rtol=0, atol=10 * close)


@pytest.mark.parametrize("name", ["added", "cast", "folded", "grouped", "one head"])
def test_attention_that_the_model_writes_out(name: str) -> None:
    """The weights are those of the model's own softmax."""
    found: list[Tensor] = []

    def weigh(model: Any, *operands: Tensor) -> Tensor:
        return MATCHED[name](model, *operands)

    torch.manual_seed(0)
    model = Written(weigh).eval().requires_grad_(False)
    axes = {"x": {0: "batch", 1: "sequence"}, "mask": {0: "batch", 1: "sequence"}}
    graph = gp.capture(model, inputs(2, 9), dynamic_axes=axes)
    call = inputs(3, 7)
    with torch.no_grad(), Softmaxes(found):
        model(*call)
    weights = gp.record(graph, call, at="attention[0].weights")["attention[0].weights"]
    assert (weights.shape[0], *weights.shape[2:]) == (3, 7, 7)
    torch.testing.assert_close(
        weights, found[0].reshape(weights.shape).to(weights.dtype), rtol=1e-5, atol=1e-6
    )


class Softmaxes(torch.overrides.TorchFunctionMode):
    """Keeps the results of every softmax."""

    def __init__(self, found: list[Tensor]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        result = function(*args, **(kwargs or {}))
        if "softmax" in getattr(function, "__name__", ""):
            self.found.append(result)
        return result


def test_only_what_is_read_is_written_out() -> None:
    model, graph = captured("bert")
    call = CASES["bert"].call(3)[1]
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            expected = model(**call, output_attentions=True).attentions
    finally:
        model.set_attn_implementation("sdpa")
    values = gp.record(graph, call, at="attention[*].weights")
    assert [*values] == [f"attention[{layer}].weights" for layer in range(len(expected))]
    for value, weights in zip(values.values(), expected, strict=True):
        torch.testing.assert_close(value, weights, rtol=1e-4, atol=1e-6)
    count = len(attentions(graph.code))
    for name, fused_ones in (("weights", count - 1), ("heads[0]", count)):
        exposed = ExposeAttention((f"attention[1].{name}",))(graph)
        assert len(attentions(exposed.code)) == fused_ones
        assert torch.allclose(*(run(**call)[0] for run in (exposed, graph)), atol=1e-5)
    assert ExposeAttention()(graph).text == graph.text


def _encoder_decoders(t: Any) -> dict[str, Any]:
    sizes = {f"{one}_layers": 2 for one in ("encoder", "decoder")}
    sizes |= {f"{one}_attention_heads": 4 for one in ("encoder", "decoder")}
    sizes |= {f"{one}_ffn_dim": 48 for one in ("encoder", "decoder")} | {"d_model": 32}
    special = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 1, "vocab_size": 60}
    whisper = {"num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": 16}
    t5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    return {
        "bart": t.BartForConditionalGeneration(t.BartConfig(**sizes, **special)),
        "whisper": t.WhisperForConditionalGeneration(
            t.WhisperConfig(**sizes, **whisper, **special)
        ),
        "t5": t.T5ForConditionalGeneration(t.T5Config(**t5, **special)),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bart", "whisper", "t5"])
def test_towers_and_cross_attention(name: str) -> None:
    """As the library gives them, which T5 writes out, with a bias of positions."""
    import transformers

    torch.manual_seed(0)
    model = _encoder_decoders(transformers)[name].eval().requires_grad_(False)
    ids, mask = torch.randint(3, 50, (2, 7)), torch.ones(2, 7, dtype=torch.int64)
    mask[0, 5:] = 0
    call: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    if name == "whisper":
        call = {"input_features": torch.randn(2, 8, 20)}
    call |= {"decoder_input_ids": torch.randint(3, 50, (2, 5)), "use_cache": False}
    graph = gp.capture(model, (), call)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        result = model(**call, output_attentions=True)
    for at, field in (
        ("encoder.attention", "encoder_attentions"),
        ("decoder.attention", "decoder_attentions"),
        ("cross_attention", "cross_attentions"),
    ):
        found = gp.record(graph, call, at=f"{at}[*].weights")
        tower = "decoder." if at == "cross_attention" else ""
        assert [*found] == [f"{tower}{at}[{layer}].weights" for layer in range(2)]
        for value, expected in zip(found.values(), result[field], strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)


def test_names() -> None:
    _, graph = captured("bert")
    call = CASES["bert"].call(3)[1]
    heads = graph.interfaces().resolve("attention[0]").shape[1]
    last = graph.interfaces().resolve("attention[-1]").aliases[0]

    def names(at: str) -> list[str]:
        return [*gp.record(graph, call, at=at)]

    assert names("attention[0].heads[*]") == [f"attention[0].heads[{i}]" for i in range(heads)]
    assert names("attention[0:2].heads[-1:]") == [f"attention[{i}].heads[1]" for i in range(2)]
    assert names("attention[-1:].weights") == [f"{last}.weights"]
    one, other = (
        gp.record(graph, call, at=at)[at]
        for at in ("attention[-1].heads[-1]", f"{last}.heads[{heads - 1}]")
    )
    assert torch.equal(one, other)
    whole = gp.record(graph, call, at="attention[0]")["attention[0]"]
    head = gp.record(graph, call, at="attention[0].heads[1]", positions="last")
    mask = call["attention_mask"].sum(1) - 1
    assert torch.equal(head["attention[0].heads[1]"], whole[torch.arange(3), 1, mask])


def test_what_has_no_inside() -> None:
    graph = tiny("reader")
    exposed = ExposeAttention(("attention[0].heads[0]",))(graph)
    key = graph.interfaces().resolve("attention[0]").key
    for name, message in (
        ("attention[3].weights", r"no interface 'attention\[3\]'"),
        ("features.weights", "is not the result of attention, so it has no weights"),
        ("attention[0].heads[2]", r"'attention\[0\]' has 2 heads, so there is no heads\[2\]"),
        (f"{key}.heads[-3]", r"has 2 heads, so there is no heads\[-3\]"),
    ):
        with pytest.raises(InterfaceError, match=message):
            gp.record(graph, torch.ones(2, 5, dtype=torch.int64), at=name)
    with pytest.raises(InterfaceError, match="does not name a value inside attention"):
        ExposeAttention(("attention[0]",))(graph)
    with pytest.raises(InterfaceError, match=r"expose it: graph = gp.passes.ExposeAttention"):
        graph.cut("attention[0].weights", "logits")
    with pytest.raises(InterfaceError, match=r"weights of 'attention\[0\]' is not an interface"):
        exposed.interfaces().resolve_all("attention[*].weights")
    assert (
        exposed.cut("attention[0].heads[0]", "logits").call_spec.inputs[0] == "attention_0_heads_0"
    )
    part = gp.Additive(at="attention[0].heads[0]", value=gp.Fixed(torch.ones(1)))
    with pytest.raises(InterfaceError, match="acts inside of it, so that it cannot take a prefix"):
        gp.compile(graph, gp.Program([gp.Prefix(length=2), part]))
    capped = tiny("soft-capped")
    with pytest.raises(InterfaceError, match="no counterpart: tanh"):
        gp.record(capped, torch.ones(2, 5, dtype=torch.int64), at="attention[0].weights")


def test_values_of_a_longer_sequence_and_of_a_prefix() -> None:
    """Inserted tokens and a prefix are keys of the weights, which sum to one."""
    graph = tiny("located")
    ids = torch.arange(10).reshape(2, 5)
    at = "attention[0].weights"
    for part, size in ((gp.Concatenative(at="tokens", length=3), (8, 8)), (gp.Prefix(2), (5, 7))):
        task = gp.compile(graph, gp.Program([part]))
        weights = gp.record(task, ids, at=at)[at]
        assert weights.shape[2:] == size
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, size[0]))
        assert not weights.triu(size[1] - size[0] + 1).any()
    both = [
        gp.Concatenative(at="tokens", length=3),
        gp.Additive(at=at, value=gp.Fixed(torch.zeros(1))),
    ]
    plain, scaled = (gp.compile(graph, gp.Program(both[:count])) for count in (1, 2))
    torch.testing.assert_close(scaled(ids), plain(ids))
