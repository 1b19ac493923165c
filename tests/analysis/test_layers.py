"""Layers named by what they are for, against the modules of libraries that hooks see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.errors import InterfaceError
from tests.models.zoo import CASES, captured

IDS = torch.randint(1, 50, (2, 7), generator=torch.Generator().manual_seed(0))


def t5() -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(d_model=16, d_kv=8, num_layers=2, num_heads=2, d_ff=32, vocab_size=60)
    return T5ForConditionalGeneration(config)


def whisper() -> nn.Module:
    from transformers import WhisperConfig, WhisperModel

    sizes = {
        f"{side}_{name}": count
        for side in ("encoder", "decoder")
        for name, count in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 32))
    }
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    return WhisperModel(
        WhisperConfig(
            d_model=16, vocab_size=60, num_mel_bins=8, max_source_positions=10, **sizes, **ends
        )
    )


OTHERS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "t5": (t5, {"input_ids": IDS, "decoder_input_ids": IDS, "use_cache": False}),
    "whisper": (
        whisper,
        {"input_features": torch.ones(2, 8, 20), "decoder_input_ids": IDS, "use_cache": False},
    ),
}

PLACES = {
    "bert": {
        "attention[1].q_proj": "layer.1.attention.self.query",
        "attention[1].k_proj": "layer.1.attention.self.key",
        "attention[1].v_proj": "layer.1.attention.self.value",
        "attention[1].o_proj": "layer.1.attention.output.dense",
        "mlp[1].up_proj": "layer.1.intermediate.dense",
        "mlp[1].down_proj": "layer.1.output.dense",
    },
    "gpt2": {
        "attention[1].qkv_proj": "h.1.attn.c_attn",
        "attention[1].o_proj": "h.1.attn.c_proj",
        "mlp[1].up_proj": "h.1.mlp.c_fc",
        "mlp[1].down_proj": "h.1.mlp.c_proj",
    },
    "llama": {
        "attention[1].q_proj": "layers.1.self_attn.q_proj",
        "attention[1].k_proj": "layers.1.self_attn.k_proj",
        "attention[1].v_proj": "layers.1.self_attn.v_proj",
        "attention[1].o_proj": "layers.1.self_attn.o_proj",
        "mlp[1].gate_proj": "layers.1.mlp.gate_proj",
        "mlp[1].up_proj": "layers.1.mlp.up_proj",
        "mlp[1].down_proj": "layers.1.mlp.down_proj",
    },
    "vit": {
        "attention[1].q_proj": "1.attention.q_proj",
        "attention[1].v_proj": "1.attention.v_proj",
        "attention[1].o_proj": "1.attention.o_proj",
        "mlp[1].up_proj": "1.mlp.fc1",
        "mlp[1].down_proj": "1.mlp.fc2",
    },
    "clip": {
        f"{tower}.{name}": f"{tower}_model.encoder.layers.1.{path}"
        for tower in ("text", "vision")
        for name, path in (
            ("attention[1].k_proj", "self_attn.k_proj"),
            ("attention[1].o_proj", "self_attn.out_proj"),
            ("mlp[1].up_proj", "mlp.fc1"),
            ("mlp[1].down_proj", "mlp.fc2"),
        )
    },
    "t5": {
        "encoder.attention[1].q_proj": "encoder.block.1.layer.0.SelfAttention.q",
        "decoder.attention[2].k_proj": "decoder.block.1.layer.0.SelfAttention.k",
        "decoder.attention[3].v_proj": "decoder.block.1.layer.1.EncDecAttention.v",
        "decoder.attention[3].o_proj": "decoder.block.1.layer.1.EncDecAttention.o",
        "encoder.mlp[1].up_proj": "encoder.block.1.layer.1.DenseReluDense.wi",
        "decoder.mlp[1].down_proj": "decoder.block.1.layer.2.DenseReluDense.wo",
    },
    "whisper": {
        "encoder.attention[1].q_proj": "encoder.layers.1.self_attn.q_proj",
        "decoder.cross_attention[1].k_proj": "decoder.layers.1.encoder_attn.k_proj",
        "decoder.cross_attention[1].o_proj": "decoder.layers.1.encoder_attn.out_proj",
        "encoder.mlp[1].up_proj": "encoder.layers.1.fc1",
        "decoder.mlp[1].down_proj": "decoder.layers.1.fc2",
    },
}


def source(name: str) -> tuple[nn.Module, gp.Graph, tuple[Any, ...], dict[str, Any]]:
    """A model, its graph, and the arguments of a call."""
    if name in OTHERS:
        build, kwargs = OTHERS[name]
        torch.manual_seed(0)
        model = build().eval().requires_grad_(False)
        return model, gp.capture(model, (), kwargs), (), kwargs
    model, graph = captured(name)[:2]
    return model, graph, *CASES[name].call(2)


def seen(
    model: nn.Module, paths: Mapping[str, str], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Inputs and outputs of modules, by name."""
    found: dict[str, Tensor] = {}
    modules = dict(model.named_modules())
    for name, path in paths.items():
        (module,) = (modules[known] for known in modules if known.endswith(path))

        def hook(module: nn.Module, given: Any, kwargs: Any, out: Any, name: str = name) -> None:
            value = given[0] if given else next(iter(kwargs.values()))
            found[f"{name}:in"], found[f"{name}:out"] = value, out

        module.register_forward_hook(hook, with_kwargs=True)
    with torch.no_grad():
        model(*args, **kwargs)
    for module in modules.values():
        module._forward_hooks.clear()
        module._forward_hooks_with_kwargs.clear()
    return found


@pytest.mark.parametrize(
    "name",
    ["gpt2", *(pytest.param(name, marks=pytest.mark.slow) for name in PLACES if name != "gpt2")],
)
def test_layers_are_those_that_modules_compute(name: str) -> None:
    model, graph, args, kwargs = source(name)
    expected = seen(model, PLACES[name], args, kwargs)
    graph = gp.passes.ExposeLayers((*expected, "norm[0]:weight"))(graph)
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    values = graph.evaluate(list(expected), tensors)
    assert set(expected) == {f"{place}:{end}" for place in PLACES[name] for end in ("in", "out")}
    for place, value in expected.items():
        torch.testing.assert_close(values[place], value, msg=place)


def test_parts_of_one_layer() -> None:
    _, graph = captured("gpt2")[:2]
    parts = [f"attention[0].{part}_proj:out" for part in "qkv"]
    graph = gp.passes.ExposeLayers(tuple(parts))(graph)
    args, kwargs = CASES["gpt2"].call(2)
    inputs = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    values = graph.evaluate([*parts, "attention[0].qkv_proj:out"], inputs)
    whole = values.pop("attention[0].qkv_proj:out")
    assert torch.equal(torch.cat([*values.values()], -1), whole)
    with pytest.raises(InterfaceError, match="no weight of its own"):
        gp.passes.ExposeLayers(("attention[0].q_proj:weight",))(graph)


class Separated(nn.Module):
    """Attention whose channels are separated within the heads, and no other layers."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (2, 12)).transpose(1, 2).chunk(3, -1)
        return x + nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def test_refusals() -> None:
    graph = gp.capture(Separated().eval(), (torch.rand(2, 5, 8),))

    def refused(at: str) -> str:
        with pytest.raises(InterfaceError) as error:
            gp.compile(graph, gp.Program([gp.Scale(at=at)]))
        return str(error.value)

    assert "their channels are separated after they are split into heads" in refused(
        "attention[0].q_proj:out"
    )
    assert "attention[0] has no o_proj: no affine layer reads the result" in refused(
        "attention[*].o_proj:out"
    )
    assert "this graph has no feed-forward network" in refused("mlp[*].down_proj:in")
    assert "this graph has no norm with a weight" in refused("norm[*]")
    task = gp.compile(graph, gp.Program([gp.Scale(at="attention[*].qkv_proj:out")]))
    assert task.program.scale_0.value.shape == (24,)


def test_feed_forward_is_not_a_head_or_a_low_rank_map() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down, self.wide = nn.Linear(8, 4), nn.Linear(4, 8), nn.Linear(8, 6)

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.down(self.up(x))
            return self.down(self.up(x).tanh())

    graph = gp.capture(Heads().eval(), (torch.rand(2, 8),))
    with pytest.raises(InterfaceError, match="no feed-forward"):
        gp.passes.ExposeLayers(("mlp[0]",))(graph)
