"""Attention written out by hand becomes one operation, or it is said why not."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.analysis.attention import attentions
from graphprog.errors import InterfaceError
from graphprog.passes import EraseProgram, MatchAttention
from graphprog.passes.attention.match_attention import explain
from graphprog.passes.pipeline import Pipeline
from graphprog.passes.verify import verify
from tests.models.attention_models import (
    LEFT,
    MATCHED,
    WIDTH,
    Weigh,
    Written,
    chained,
    inputs,
    parallel,
)
from tests.models.prefix_models import VOCABULARY, cached, filled, presence, some_ids
from tests.support.comparisons import gap

_SIZES: dict[str, Any] = {"vocab_size": VOCABULARY, "n_layer": 2, "n_head": 4}
_ROTARY = {**_SIZES, "n_embd": 32, "n_positions": 64, "rotary_dim": 4}
_SPECIAL = {"bos_token_id": 1, "eos_token_id": 2}
_HIDDEN: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "head_dim": 8,
    "attn_implementation": "eager",
}

FAMILIES: dict[str, Callable[[Any], nn.Module]] = {
    "bloom": lambda t: t.BloomForCausalLM(t.BloomConfig(hidden_size=32, **_SIZES)),
    "gptj": lambda t: t.GPTJForCausalLM(t.GPTJConfig(**_ROTARY, **_SPECIAL)),
    "mpt": lambda t: t.MptForCausalLM(
        t.MptConfig(vocab_size=VOCABULARY, d_model=32, n_heads=4, n_layers=2, max_seq_len=64)
    ),
    "codegen": lambda t: t.CodeGenForCausalLM(t.CodeGenConfig(n_ctx=64, **_ROTARY, **_SPECIAL)),
    "neo": lambda t: t.GPTNeoForCausalLM(
        t.GPTNeoConfig(
            vocab_size=VOCABULARY,
            max_position_embeddings=64,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
            window_size=7,
            **_SPECIAL,
        )
    ),
    "llama": lambda t: t.LlamaForCausalLM(t.LlamaConfig(**_HIDDEN)),
    "gemma2": lambda t: t.Gemma2ForCausalLM(t.Gemma2Config(**_HIDDEN)),
}
"""Models that write attention out, or are told to."""

_FAST = ("bloom", "gptj")
_MATCHED_FAMILIES = [
    name if name in _FAST else pytest.param(name, marks=pytest.mark.slow)
    for name in FAMILIES
    if name != "gemma2"
]


@functools.cache
def family(name: str) -> tuple[nn.Module, gp.Graph]:
    """A model and its graph, for any batch and length."""
    import transformers

    torch.manual_seed(0)
    model = FAMILIES[name](transformers).eval().requires_grad_(False)
    call = given(2, 9)
    axes = {key: {0: "batch", 1: "sequence"} for key in call if key != "use_cache"}
    return model, gp.capture(model, (), call, axes)


def given(batch: int, length: int) -> dict[str, Any]:
    """Arguments of a decoder."""
    mask = presence(batch, length)
    return {"input_ids": some_ids(batch, length), "attention_mask": mask, "use_cache": False}


def written(weigh: Weigh, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, gp.Graph]:
    """A model with one attention, and its graph for any batch and length."""
    torch.manual_seed(0)
    model = Written(weigh).eval().requires_grad_(False).to(dtype)
    axes = {"x": {0: "batch", 1: "sequence"}, "mask": {0: "batch", 1: "sequence"}}
    x, mask = inputs(2, 9)
    return model, gp.capture(model, (x.to(dtype), mask), dynamic_axes=axes)


@pytest.mark.parametrize("name", MATCHED)
def test_every_form_is_one_operation_with_the_same_result(name: str) -> None:
    model, graph = written(MATCHED[name])
    matched = MatchAttention()(graph)
    verify(matched, matched)
    (found,) = attentions(matched.code)
    assert "softmax" not in str(matched)
    assert found.node.meta["val"].ndim == 4
    place = matched.interfaces().resolve("attention[0]")
    assert place.node == found.node.name
    for batch, length in ((2, 9), (5, 3), (1, 20)):
        x, mask = inputs(batch, length)
        with torch.no_grad():
            assert gap(matched(x, mask), model(x, mask)) < 1e-6
    assert len(explain(graph)) == 1
    assert explain(graph)[0].endswith("is attention")


@pytest.mark.parametrize("weigh", [chained, parallel], ids=["chained", "parallel"])
def test_one_attention_beside_or_behind_another(weigh: Weigh) -> None:
    model, graph = written(weigh)
    matched = MatchAttention()(graph)
    verify(matched, matched)
    assert len(attentions(matched.code)) == 2
    x, mask = inputs(3, 5)
    with torch.no_grad():
        assert gap(matched(x, mask), model(x, mask)) < 1e-6


@pytest.mark.parametrize("name", LEFT)
def test_what_is_something_else_stays_and_is_explained(name: str) -> None:
    weigh, message = LEFT[name]
    _, graph = written(weigh)
    assert MatchAttention()(graph).text == graph.text
    (text,) = explain(graph)
    assert text.startswith("softmax: found")
    pattern = rf"(?s)written as single operations.*{message}.*attention_models.py:"
    with pytest.raises(InterfaceError, match=pattern):
        filled(graph)


@pytest.mark.parametrize("name", _MATCHED_FAMILIES)
def test_a_memory_is_what_a_cache_of_the_model_would_be(name: str) -> None:
    model, graph = family(name)
    matched = MatchAttention()(graph)
    task = filled(graph)
    for batch, length in ((3, 12), (1, 2), (2, 30)):
        call = given(batch, length)
        with torch.no_grad():
            found, plain = task(**call).logits, model(**call).logits
            assert gap(matched(**call).logits, plain) < 1e-6
        wanted = cached(model, task, call["input_ids"], call["attention_mask"])
        real = call["attention_mask"].bool()
        assert (found - wanted)[real].abs().max() < 1e-5
        assert (plain - wanted)[real].abs().max() > 5e-3  # the comparison can fail
        with task.disabled(), torch.no_grad():
            assert torch.equal(task(**call).logits, plain)


@pytest.mark.slow
def test_capped_scores_of_a_family_are_explained() -> None:
    _, graph = family("gemma2")
    with pytest.raises(InterfaceError, match=r"(?s)layers.0.self_attn.*no counterpart: tanh.*in m"):
        filled(graph)


def test_interfaces_keep_their_names() -> None:
    _, graph = family("bloom")
    matched = MatchAttention()(graph)
    kept = set(graph.aliases.items())
    assert kept < set(matched.aliases.items())
    assert {alias for alias, _ in set(matched.aliases.items()) - kept} == {
        "attention[0]",
        "attention[1]",
    }
    assert set(graph.sites) & set(matched.sites) > {"transformer.h.0:out[0]", "output:logits"}
    assert MatchAttention()(matched).interfaces().keys() == matched.interfaces().keys()


def test_heads_that_are_folded_into_the_batch_have_their_own_memory() -> None:
    for name in ("folded", "biased"):
        _, graph = written(MATCHED[name])
        task = gp.compile(graph, gp.Program([gp.Prefix(length=3, positions="keep")]))
        (value,) = task.program.parameters()
        assert value.shape == (3, 2 * WIDTH)
        x, mask = inputs(4, 7)
        assert task(x, mask).shape == (4, 7, WIDTH)


def test_grouped_heads_have_a_memory_of_as_many_as_there_are_keys() -> None:
    _, graph = written(MATCHED["grouped"])
    task = gp.compile(graph, gp.Program([gp.Prefix(length=3)]))
    (value,) = task.program.parameters()
    assert value.shape == (3, 2 * WIDTH // 2)


def test_the_program_is_proved_against_the_matched_graph() -> None:
    _, graph = family("bloom")
    task = filled(graph)
    assert task.base is graph
    assert EraseProgram()(task.graph).bare_text == MatchAttention()(graph).bare_text
    assert Pipeline.parse(str(task.pipeline)).passes[0] == MatchAttention()
    assert gp.compile(graph, gp.Program([])).graph.bare_text == graph.bare_text


def test_saved_and_loaded_it_is_matched_again(tmp_path: Path) -> None:
    _, graph = family("bloom")
    task = filled(graph)
    gp.save(task, tmp_path / "prefix.safetensors")
    again = gp.load(tmp_path / "prefix.safetensors", graph)
    with torch.no_grad():
        assert torch.equal(again(**given(3, 7)).logits, task(**given(3, 7)).logits)


def test_onnx_runtime_agrees_at_other_sizes(tmp_path: Path) -> None:
    _, graph = family("bloom")
    task = filled(graph)
    example = (some_ids(2, 6), presence(2, 6))
    assert gp.backends.onnx.export(task, tmp_path / "memory.onnx", inputs=example).passed
    session = gp.backends.onnxruntime.Session(tmp_path / "memory.onnx", providers="cpu")
    call = given(4, 13)
    with torch.no_grad():
        wanted = task(**call).logits
    found = session.evaluate((call["input_ids"], call["attention_mask"]))[0]
    real = call["attention_mask"].bool()
    assert (torch.as_tensor(found) - wanted)[real].abs().max() < 1e-5


def test_a_prompt_in_front_of_matched_attention_is_one_in_front_of_the_source() -> None:
    for name in ("biased", "grouped", "added"):
        _, graph = written(MATCHED[name])
        part = gp.Concatenative(at="input:x", length=3, value=gp.Learnable("normal", 0.5))
        tasks = [gp.compile(one, gp.Program([part])) for one in (graph, MatchAttention()(graph))]
        call = inputs(3, 8)
        with torch.no_grad():
            assert gap(tasks[1](*call), tasks[0](*call)) < 1e-6


@pytest.mark.filterwarnings("ignore")
def test_a_prefix_of_peft_acts_where_attention_is_written_out(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model, graph = family("bloom")
    sizes = {"num_layers": 2, "token_dim": 32, "num_attention_heads": 4}
    options = {"num_virtual_tokens": 4, "num_transformer_submodules": 1, **sizes}
    torch.manual_seed(1)
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", **options)
    trained = peft.get_peft_model(copy.deepcopy(model), config).eval()
    trained.save_pretrained(tmp_path / "theirs")
    task = gp.peft.load(tmp_path / "theirs", graph)
    call = given(3, 8)
    with torch.no_grad():
        found, plain = task(**call).logits, graph(**call).logits
        wanted = trained(input_ids=call["input_ids"], attention_mask=call["attention_mask"]).logits
    real = call["attention_mask"].bool()
    assert (found - wanted)[real].abs().max() < 1e-6
    assert (found - plain)[real].abs().max() > 1e-2
    naming: dict[str, Any] = {"base_model_name_or_path": "some/base", "task_type": "CAUSAL_LM"}
    gp.peft.save(task, tmp_path / "mine", **naming)
    with torch.no_grad():
        assert torch.equal(gp.peft.load(tmp_path / "mine", graph)(**call).logits, found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_numbers_of_other_widths(dtype: torch.dtype) -> None:
    for name in ("filled with -inf", "plain", "grouped"):
        model, graph = written(MATCHED[name], dtype)
        matched = MatchAttention()(graph)
        x, mask = inputs(3, 6)
        with torch.no_grad():
            found, wanted = matched(x.to(dtype), mask), model(x.to(dtype), mask)
        assert found.dtype == dtype
        assert gap(found, wanted) < (1e-12 if dtype == torch.float64 else 0.02)
