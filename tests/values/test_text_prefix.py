"""A text that is compiled into the memory of attention: the whole text is the reference."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import graphprog as gp
from graphprog.errors import PassError, ProgramError
from tests.models.prefix_models import DECODERS, VOCABULARY, decoder, encoder, presence, some_ids

TEXT = tuple(some_ids(1, 6)[0].tolist())


def call(ids: Tensor, mask: Tensor | None) -> dict[str, Any]:
    given: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    return given if mask is None else {**given, "attention_mask": mask}


def behind(ids: Tensor, mask: Tensor) -> dict[str, Any]:
    """A query behind the text, as one call."""
    text = torch.tensor([TEXT]).expand(len(ids), -1)
    return call(torch.cat([text, ids], 1), torch.cat([torch.ones_like(text), mask], 1))


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("gpt2", "llama", "windows") else pytest.param(name, marks=pytest.mark.slow)
        for name in DECODERS
    ],
)
def test_a_query_gets_what_it_gets_behind_the_text(name: str) -> None:
    model, graph = decoder(name)
    task = gp.compile(graph, gp.Program([gp.Prefix(value=gp.TextPrefix(TEXT))]))
    assert not list(task.program.parameters())
    for batch, length in ((3, 9), (1, 2), (2, 20)):
        ids, mask = some_ids(batch, length), presence(batch, length)
        with torch.no_grad():
            found = task(**call(ids, mask)).logits
            wanted = model(**behind(ids, mask)).logits[:, len(TEXT) :]
        real = mask.bool()
        assert (found - wanted)[real].abs().max() < 1e-5
        if name == "windows" and length == 20:  # the text slides out of sight
            plain = model(**call(ids, mask)).logits
            assert (plain - wanted)[:1, -1].abs().max() < 1e-5


def test_the_exported_graph_takes_the_query_alone(tmp_path: Path) -> None:
    model, graph = decoder("gpt2")
    task = gp.compile(graph, gp.Program([gp.Prefix(value=gp.TextPrefix(TEXT))]))
    example = (some_ids(2, 6), presence(2, 6))
    assert gp.backends.onnx.export(task, tmp_path / "text.onnx", inputs=example).passed
    session = gp.backends.onnxruntime.Session(tmp_path / "text.onnx", providers="cpu")
    ids, mask = some_ids(4, 11), presence(4, 11)
    found = np.asarray(session.evaluate((ids, mask))[0])
    with torch.no_grad():
        wanted = model(**behind(ids, mask)).logits[:, len(TEXT) :].numpy()
    assert np.abs(found - wanted)[mask.bool().numpy()].max() < 1e-5


def test_it_is_saved_as_its_tokens(tmp_path: Path) -> None:
    _, graph = decoder("llama")
    task = gp.compile(graph, gp.Program([gp.Prefix(value=gp.TextPrefix(TEXT))]))
    gp.save(task, tmp_path / "text.safetensors")
    again = gp.load(tmp_path / "text.safetensors", graph)
    given = call(some_ids(2, 5), presence(2, 5))
    with torch.no_grad():
        assert torch.equal(again(**given).logits, task(**given).logits)


def test_a_soft_start_is_the_text_and_can_be_trained_and_saved(tmp_path: Path) -> None:
    model, graph = decoder("llama")
    part = gp.Prefix(value=gp.TextPrefix(TEXT, learnable=True))
    task = gp.compile(graph, gp.Program([part]))
    ids, mask = some_ids(2, 5), torch.ones(2, 5, dtype=torch.int64)
    with torch.no_grad():
        wanted = model(**behind(ids, mask)).logits[:, len(TEXT) :]
    found = task(**call(ids, mask)).logits
    assert (found - wanted).abs().max() < 1e-5
    found.square().sum().backward()
    (value,) = task.program.parameters()
    assert value.grad is not None
    with torch.no_grad():
        value -= 0.1 * value.grad
        changed = task(**call(ids, mask)).logits
    assert not torch.equal(changed, found)
    gp.save(task, tmp_path / "soft.safetensors")
    again = gp.load(tmp_path / "soft.safetensors", graph)
    with torch.no_grad():
        assert torch.equal(again(**call(ids, mask)).logits, changed)


@pytest.mark.parametrize("learnable", [False, True])
def test_a_model_in_double_precision_remembers_as_precisely(
    learnable: bool, tmp_path: Path
) -> None:
    model = copy.deepcopy(decoder("gpt2")[0]).double()
    for weight in model.parameters():
        weight.mul_(5.0)  # so that a text matters
    axes = {"input_ids": {0: "batch", 1: "sequence"}}
    graph = gp.capture(model, (), {"input_ids": some_ids(2, 9), "use_cache": False}, axes)
    value = gp.TextPrefix(TEXT, learnable=learnable)
    task = gp.compile(graph, gp.Program([gp.Prefix(value=value)]))
    ids = some_ids(2, 7)
    gp.save(task, tmp_path / "text.safetensors")
    again = gp.load(tmp_path / "text.safetensors", graph)
    with torch.no_grad():
        whole = behind(ids, torch.ones_like(ids))["input_ids"]
        wanted = model(input_ids=whole).logits[:, len(TEXT) :]
        assert (model(input_ids=ids).logits - wanted).abs().max() > 1e-2
        for one in (task, again):
            assert (one(**call(ids, None)).logits - wanted).abs().max() < 1e-9


def test_a_text_that_would_see_the_query_is_refused() -> None:
    _, graph = encoder()
    with pytest.raises(PassError, match="the text sees what follows it"):
        gp.compile(graph, gp.Program([gp.Prefix(value=gp.TextPrefix(TEXT))]))


def test_a_text_beside_other_entries_is_refused() -> None:
    """The source reads it without them."""
    _, graph = decoder("gpt2")
    text = gp.Prefix(value=gp.TextPrefix(TEXT))
    for other in (gp.methods.prompt_tuning(tokens=3), [gp.Prefix(length=3, name="learned")]):
        with pytest.raises(ProgramError, match="the program also inserts entries"):
            gp.compile(graph, gp.Program([*other, text]))


def test_a_text_is_read_by_the_source_alone() -> None:
    """Beside a part that does nothing yet it is the same, and one that does is refused."""
    model, graph = decoder("gpt2")
    text = gp.Prefix(value=gp.TextPrefix(TEXT))
    task = gp.compile(graph, gp.Program([gp.Additive(at="hidden[0]"), text]))
    ids = some_ids(2, 7)
    with torch.no_grad():
        wanted = model(**behind(ids, torch.ones_like(ids))).logits[:, len(TEXT) :]
        found = task(**call(ids, torch.ones_like(ids))).logits
    assert (found - wanted).abs().max() < 1e-5
    added = gp.Additive(at="hidden[0]", value=gp.Learnable("normal", 1.0))
    with pytest.raises(PassError, match="leave out other parts that change what attention reads"):
        gp.compile(graph, gp.Program([added, text]))


def test_a_text_that_some_layers_forget_is_refused() -> None:
    _, graph = decoder("gpt2")
    with pytest.raises(PassError, match="than the whole text"):
        gp.compile(graph, gp.Program([gp.Prefix(at="attention[0:1]", value=gp.TextPrefix(TEXT))]))


def test_tokens_that_are_none_are_refused() -> None:
    _, graph = decoder("gpt2")
    with pytest.raises(ProgramError, match="no tokens"):
        gp.TextPrefix(())
    with pytest.raises(ProgramError, match="there is no token 97"):
        gp.compile(graph, gp.Program([gp.Prefix(value=gp.TextPrefix((1, VOCABULARY)))]))
    with pytest.raises(ProgramError, match=r"cannot run on inputs of shape \(1, 65\)"):
        gp.compile(graph, gp.Program([gp.Prefix(value=gp.TextPrefix((1,) * 65))]))
