"""Gated adaption prompts, against hooks that compute them eagerly."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

import graphprog as gp
from graphprog.errors import ProgramError
from tests.models.zoo import CASES, captured
from tests.support import oracle
from tests.support.comparisons import same

pytestmark = pytest.mark.xdist_group("gpt2")


def gpt2_prompt(**options: Any) -> gp.AdaptionPrompt:
    layer = "transformer.h.*.attn.c_attn"
    return gp.AdaptionPrompt(
        **{
            "at": "transformer.h.*.attn.c_proj:out",
            "queries": f"{layer}:out",
            "keys": (f"source.{layer}.weight", f"source.{layer}.bias"),
            "transposed": True,
            "heads": 2,
            "length": 5,
            **options,
        }
    )


def llama_prompt(**options: Any) -> gp.AdaptionPrompt:
    layer = "model.layers.*.self_attn"
    return gp.AdaptionPrompt(
        at=f"{layer}.o_proj:in",
        queries=f"{layer}.q_proj:out",
        keys=(f"source.{layer}.k_proj.weight",),
        values=(f"source.{layer}.v_proj.weight",),
        rotary=("model.rotary_emb:out[0]", "model.rotary_emb:out[1]"),
        heads=4,
        length=5,
        **options,
    )


def filled(task: gp.ReprogrammedModel) -> dict[str, torch.Tensor]:
    """The program's tensors, with gates that are open."""
    state = task.program_state()
    for name, value in state.items():
        if name.endswith("gate"):
            value.normal_()
    task.load_program_state(state)
    return state


def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """softmax(q kᵀ / √d) v of a prompt: q [B, T, h·d], k and v [n, kv·d], one head at a time."""
    size = q.shape[-1] // heads
    group = heads // (k.shape[-1] // size)
    found = []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        other = slice(head // group * size, (head // group + 1) * size)
        weights = torch.softmax(q[..., own] @ k[:, other].T / math.sqrt(size), -1)
        found.append(weights @ v[:, other])
    return torch.stack(found, -2)


@pytest.mark.parametrize(
    ("gates", "squash"), [("each", "tanh"), pytest.param("all", "none", marks=pytest.mark.slow)]
)
def test_gpt2(gates: str, squash: str) -> None:
    model, graph = captured("gpt2")
    args, kwargs = CASES["gpt2"].call(3)
    task = gp.compile(graph, gp.Program([gpt2_prompt(gates=gates, squash=squash)]))
    assert same(task(*args, **kwargs), graph(*args, **kwargs))
    state = filled(task)
    queries: dict[str, torch.Tensor] = {}

    def visit(key: str, value: torch.Tensor) -> torch.Tensor:
        block, _, place = key.partition(".attn.")
        if place == "c_attn:out":
            queries[block] = value[..., :32]
        if place != "c_proj:out":
            return value
        number = block.rsplit(".", 1)[1]
        layer = model.get_submodule(f"{block}.attn.c_attn")
        projected = state[f"program.adaption_prompt_{number}.prompt"] @ layer.weight + layer.bias
        found = attended(queries[block], projected[:, 32:64], projected[:, 64:], 2)
        gate = state[f"program.adaption_prompt_{number}.gate"][:, None]
        gate = torch.tanh(gate) if squash == "tanh" else gate
        return value + (gate * found).flatten(2)

    with torch.no_grad(), oracle.visiting(model, visit):
        expected = model(*args, **kwargs)
    torch.testing.assert_close(task(*args, **kwargs)["logits"], expected["logits"])


def test_gradients_reach_gate_first_and_then_the_prompt() -> None:
    _, graph = captured("gpt2")
    args, kwargs = CASES["gpt2"].call(3)
    task = gp.compile(graph, gp.Program([gpt2_prompt()]))
    task(*args, **kwargs)["logits"].square().sum().backward()
    assert task.program.adaption_prompt_0.gate.grad.any()
    assert not task.program.adaption_prompt_0.prompt.grad.any()
    filled(task)
    task(*args, **kwargs)["logits"].square().sum().backward()
    assert task.program.adaption_prompt_0.prompt.grad.any()
    assert all(p.grad is None for n, p in task.named_parameters() if n.startswith("source."))


@pytest.mark.slow
def test_llama_with_rotary_queries_and_fewer_key_heads_is_what_peft_computes() -> None:
    peft = pytest.importorskip("peft")
    from tests.models.library_models import llama

    torch.manual_seed(0)
    model = llama().eval()
    args, kwargs = CASES["llama"].call(3)
    kwargs.pop("attention_mask")
    axes = {"input_ids": {0: "batch", 1: "sequence"}}
    graph = gp.capture(model, args, kwargs, axes)
    task = gp.compile(graph, gp.Program([llama_prompt()]))
    assert same(task(*args, **kwargs), graph(*args, **kwargs))
    state = filled(task)
    tuned = peft.get_peft_model(
        model, peft.AdaptionPromptConfig(adapter_len=5, adapter_layers=2, task_type="CAUSAL_LM")
    ).eval()
    for number in range(2):
        adapted = tuned.base_model.model.model.layers[number].self_attn
        adapted.adaption_prompt.data = state[f"program.adaption_prompt_{number}.prompt"][
            None
        ].clone()
        adapted.adaption_gate.data = state[f"program.adaption_prompt_{number}.gate"].clone()
    with torch.no_grad():
        expected = tuned(*args, **kwargs)["logits"]
    torch.testing.assert_close(task(*args, **kwargs)["logits"], expected, rtol=1e-5, atol=1e-5)
    plain = graph(*args, **kwargs)["logits"]
    assert not torch.allclose(expected, plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "5 heads over 32 entries do not match the 96 entries"),
        ({"transposed": False}, r"(?s)weights \(32, 96\).*transposed=True"),
        ({"keys": ()}, "keys"),
        (
            {"values": ("source.transformer.wte.weight",)},
            "a bias for both keys and values, or for neither",
        ),
        ({"gates": "some"}, "gates must be one of all, each, not 'some'"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    _, graph = captured("gpt2")
    with pytest.raises(ProgramError, match=message):
        gp.compile(graph, gp.Program([gpt2_prompt(**options)]))


def test_the_reference_is_ordinary_attention() -> None:
    q, k, v = torch.randn(2, 3, 8), torch.randn(5, 8), torch.randn(5, 8)
    heads = [part.unflatten(-1, (2, 4)).transpose(-3, -2) for part in (q, k, v)]
    whole = functional.scaled_dot_product_attention(heads[0], heads[1][None], heads[2][None])
    torch.testing.assert_close(attended(q, k, v, 2).transpose(1, 2), whole)
