"""Keys and values in front of those of attention: the model's own cache is the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import graphprog as gp
from graphprog.errors import InterfaceError, PassError, ProgramError
from tests.models.prefix_models import (
    DECODERS,
    LENGTH,
    cached,
    decoder,
    filled,
    pairs_of,
    presence,
    some_ids,
)

QUICK = {("gpt2", True), ("gpt2", False), ("llama", True), ("windows", True)}


@pytest.mark.parametrize(
    ("name", "masked"),
    [
        pytest.param(name, masked, marks=() if (name, masked) in QUICK else pytest.mark.slow)
        for name in DECODERS
        for masked in (True, False)
    ],
)
def test_a_memory_is_what_a_cache_of_the_model_would_be(name: str, masked: bool) -> None:
    model, graph = decoder(name, masked)
    task = filled(graph)
    for batch, length in ((3, 12), (1, 2), (2, 30)):
        ids, mask = some_ids(batch, length), presence(batch, length) if masked else None
        given: dict[str, Any] = {"input_ids": ids, "use_cache": False}
        if mask is not None:
            given["attention_mask"] = mask
        with torch.no_grad():
            found, plain = task(**given).logits, model(**given).logits
        real = mask.bool() if mask is not None else torch.ones_like(ids, dtype=torch.bool)
        wanted = cached(model, task, ids, mask)
        assert (found - wanted)[real].abs().max() < 1e-6
        assert (plain - wanted)[real].abs().max() > 1e-2  # the comparison can fail
        with task.disabled(), torch.no_grad():
            assert torch.equal(task(**given).logits, plain)


def test_no_keys_are_the_source_bit_for_bit() -> None:
    model, graph = decoder("gpt2")
    task = gp.compile(graph, gp.Program([gp.Prefix(length=0)]))
    given = {"input_ids": some_ids(3, 7), "attention_mask": presence(3, 7), "use_cache": False}
    with torch.no_grad():
        assert torch.equal(task(**given).logits, model(**given).logits)


def test_gradients_reach_the_memory_and_nothing_else() -> None:
    _, graph = decoder("llama")
    task = filled(graph)
    before = task.source_hash()
    given = {"input_ids": some_ids(3, 7), "attention_mask": presence(3, 7), "use_cache": False}
    task(**given).logits.square().sum().backward()
    (value,) = task.program.parameters()
    assert value.grad is not None
    assert value.shape == (LENGTH, 2 * 2 * 2 * 8)
    assert bool((value.grad.abs().sum(0) > 0).all())
    assert all(weight.grad is None for weight in task.source.parameters())
    assert task.source_hash() == before


@pytest.mark.parametrize("name", ["gpt2", pytest.param("windows", marks=pytest.mark.slow)])
def test_onnx_runtime_agrees_at_other_sizes(name: str, tmp_path: Path) -> None:
    _, graph = decoder(name)
    task = filled(graph)
    example = (some_ids(2, 6), presence(2, 6))
    assert gp.backends.onnx.export(task, tmp_path / "memory.onnx", inputs=example).passed
    session = gp.backends.onnxruntime.Session(tmp_path / "memory.onnx", providers="cpu")
    for batch, length in ((1, 4), (4, 13)):
        ids, mask = some_ids(batch, length), presence(batch, length)
        with torch.no_grad():
            wanted = task(input_ids=ids, attention_mask=mask, use_cache=False).logits
        found = np.asarray(session.evaluate((ids, mask))[0])
        assert np.abs(found - wanted.numpy())[mask.bool().numpy()].max() < 1e-5


def test_kept_positions_count_the_tokens_from_zero() -> None:
    model, graph = decoder("gpt2")
    task = filled(graph, positions="keep")
    ids, mask = some_ids(3, 8), torch.ones(3, 8, dtype=torch.int64)
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer, pair in enumerate(pairs_of(task)):
        cache.update(*(one[None].expand(3, -1, -1, -1).clone() for one in pair), layer)
    ones = torch.ones(3, LENGTH, dtype=torch.int64)
    with torch.no_grad():
        wanted = model(
            input_ids=ids,
            attention_mask=torch.cat([ones, mask], 1),
            position_ids=torch.arange(8)[None],
            past_key_values=cache,
        ).logits
        found = task(input_ids=ids, attention_mask=mask, use_cache=False).logits
    assert torch.equal(found, wanted)


def test_positions_that_are_given_count_the_memory_where_they_are_said_to_be_positions() -> None:
    model, _ = decoder("gpt2")
    ids, places = some_ids(2, 9), torch.arange(9)[None].expand(2, -1).contiguous()
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "position_ids")}
    call = {"input_ids": ids, "position_ids": places, "use_cache": False}
    graph = gp.capture(model, (), call, axes)
    with pytest.raises(PassError, match=r"(?s)input is not known.*'position_ids': .*'positions'"):
        filled(graph)  # where they do not go on by one, the model begins another text
    task = filled(graph, input_roles={"position_ids": "positions"})
    with torch.no_grad():
        found = task(**call).logits
        wanted = cached(model, task, ids, torch.ones_like(ids))
    assert (found - wanted).abs().max() < 1e-6


def test_a_range_of_layers_has_a_memory_of_its_own() -> None:
    _, graph = decoder("gpt2")
    last = gp.compile(graph, gp.Program([gp.Prefix(at="attention[1:2]", positions="keep")]))
    given = {"input_ids": some_ids(2, 7), "attention_mask": presence(2, 7), "use_cache": False}
    with torch.no_grad():
        assert not torch.equal(last(**given).logits, graph(**given).logits)
    first, second = (f"attention[{layer}]" for layer in range(2))
    sizes = [
        last.graph.nodes[graph.interfaces().resolve(alias).node].args[1].meta["val"].shape[2]  # type: ignore[union-attr]
        for alias in (first, second)
    ]
    assert str(sizes[1]) == f"{sizes[0]} + 10"
    (value,) = last.program.parameters()
    assert value.shape == (10, 2 * 4 * 8)


def test_two_memories_stand_one_in_front_of_the_other() -> None:
    _, graph = decoder("llama")
    parts = [
        gp.Prefix(length=2, name="near", value=gp.Learnable("normal", 0.5)),
        gp.Prefix(length=3, name="far", value=gp.Learnable("normal", 0.5)),
    ]
    both = gp.compile(graph, gp.Program(parts))
    one = filled(graph)
    state = both.program_state()
    rows = [state["program.far.rows.value"], state["program.near.rows.value"]]
    one.load_program_state({"program.prefix.rows.value": torch.cat(rows)})
    given = {"input_ids": some_ids(3, 7), "attention_mask": presence(3, 7), "use_cache": False}
    with torch.no_grad():
        assert torch.equal(both(**given).logits, one(**given).logits)


def test_a_reparameterized_memory_is_saved_as_plain_rows(tmp_path: Path) -> None:
    _, graph = decoder("llama")
    task = gp.compile(graph, gp.Program(gp.methods.prefix_tuning(tokens=4, hidden=6, inputs=5)))
    given = {"input_ids": some_ids(3, 7), "attention_mask": presence(3, 7), "use_cache": False}
    with torch.no_grad():
        wanted = task(**given).logits
    gp.save(task, tmp_path / "prefix.safetensors")
    again = gp.load(tmp_path / "prefix.safetensors", graph)
    assert set(again.program_state()) == {"program.prefix.rows.value"}
    with torch.no_grad():
        assert torch.equal(again(**given).logits, wanted)
    names = {name.split(".")[-2] for name in task.program_state()}
    assert names > {"0", "2"}  # the two layers of the network


def test_what_is_no_attention_is_refused() -> None:
    _, graph = decoder("gpt2")
    with pytest.raises(InterfaceError, match="not the result of attention"):
        gp.compile(graph, gp.Program([gp.Prefix(at="hidden[0]")]))


def test_bad_options_are_named() -> None:
    with pytest.raises(ProgramError, match="negative"):
        gp.Prefix(length=-1)
    with pytest.raises(ProgramError, match="positions must be one of shift, keep, not 'far'"):
        gp.Prefix(positions="far")
    with pytest.raises(ProgramError, match=r"role of input 'mask' must be one of .* not 'x'"):
        gp.Prefix(input_roles={"mask": "x"})  # type: ignore[arg-type]


def test_a_fixed_length_whose_positions_move_is_refused() -> None:
    model, _ = decoder("gpt2")
    graph = gp.capture(model, (), {"input_ids": some_ids(2, 9), "use_cache": False})
    with pytest.raises(PassError, match="cannot be determined from a number"):
        filled(graph)
    task = filled(graph, positions="keep")
    assert task(input_ids=some_ids(3, 9), use_cache=False).logits.isfinite().all()
