"""Text that is learned on from, and prefixes that are stored as keys and values."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import graphprog as gp
from graphprog.errors import ProgramError
from tests.models.text_models import QUERIES, SHOWN, TOLD, behind, reader, tokenizer, whole_text

CAUSAL = ["gpt2", pytest.param("llama", marks=pytest.mark.slow)]
LABELS = gp.Verbalizer({"good": " good", "bad": " bad"})


@pytest.mark.parametrize("by", ["prefix", "tokens"])
@pytest.mark.parametrize("name", CAUSAL)
def test_a_soft_start_is_the_text_and_training_goes_on_from_it(name: str, by: Any) -> None:
    model, graph = reader(name)
    program = gp.Program([TOLD, SHOWN], align=gp.LastToken())
    task = gp.compile(graph, gp.text.soft_prompt(program, by))
    found = task(**task.encode(QUERIES))
    for query, row in zip(QUERIES, found, strict=True):
        assert (row - behind(model, name, whole_text(query))).abs().max() < 1e-5
    assert task.trained_parameters() > 0


@pytest.mark.parametrize("by", ["prefix", pytest.param("tokens", marks=pytest.mark.slow)])
def test_training_lowers_the_loss_and_what_was_learnt_is_loaded(tmp_path: Path, by: Any) -> None:
    _, graph = reader("gpt2")
    task = gp.compile(graph, gp.text.soft_prompt(gp.Program([TOLD, SHOWN], align=LABELS), by))
    data = (task.encode(QUERIES * 4), torch.tensor([1, 0, 1] * 4))
    history = gp.fit(task, data, data, epochs=8, batch_size=6, lr=0.02, seed=0)
    assert history.records[-1].train_loss < 0.5 * history.records[0].train_loss
    gp.save(task, tmp_path / "soft.safetensors")
    again = gp.load(tmp_path / "soft.safetensors", graph)
    with torch.no_grad():
        assert torch.equal(again(**again.encode(QUERIES)), task(**task.encode(QUERIES)))


def test_a_soft_start_from_tokens_needs_no_causal_model() -> None:
    model, graph = reader("bert", head="labels")
    task = gp.compile(graph, gp.text.soft_prompt(gp.Program([TOLD]), "tokens"))
    found = task(**task.encode(QUERIES)).logits
    for query, row in zip(QUERIES, found, strict=True):
        ids = torch.tensor([tokenizer("bert")(f"{TOLD.text}\n\n{query}")["input_ids"]])
        with torch.no_grad():
            assert (row - model(input_ids=ids).logits[0]).abs().max() < 1e-5


def test_what_has_no_text_for_all_queries_has_no_soft_start() -> None:
    nearest = dataclasses.replace(SHOWN, order="nearest")
    soft = gp.text.soft_prompt(gp.Program([TOLD, nearest]))
    assert [part.kept for part in soft.manipulations] == ["learned-prefix", "prefix"]  # type: ignore[union-attr]
    for program in (gp.Program([nearest]), gp.Program([gp.Prefix(length=3)])):
        with pytest.raises(ProgramError, match="no text before all queries"):
            gp.text.soft_prompt(program)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_trained_prompt_of_tokens_becomes_keys_and_values(name: str, tmp_path: Path) -> None:
    _, graph = reader(name)
    prompt = gp.Concatenative(at="tokens", length=7, init="vocabulary", name="soft")
    task = gp.compile(graph, gp.Program([prompt]))
    with torch.no_grad():
        next(task.program.parameters()).mul_(1.3)  # as if trained
    folded = gp.precompute(task)
    assert not list(folded.program.parameters())
    given = task.encode(QUERIES)
    mask = given["attention_mask"].bool()
    with torch.no_grad():
        wanted, found = task(**given).logits, folded(**given).logits
    assert wanted.shape[1] == found.shape[1] + 7
    assert (wanted[:, 7:] - found)[mask].abs().max() < 1e-5
    gp.save(folded, tmp_path / "folded.safetensors")
    again = gp.load(tmp_path / "folded.safetensors", graph)
    with torch.no_grad():
        assert torch.equal(again(**given).logits, found)


@pytest.mark.parametrize("kept", ["prefix", "learned-prefix", "learned-tokens"])
def test_text_is_folded_however_it_was_kept(kept: Any) -> None:
    model, graph = reader("gpt2")
    parts = [dataclasses.replace(part, kept=kept) for part in (TOLD, SHOWN)]
    folded = gp.precompute(gp.compile(graph, gp.Program(parts, align=gp.LastToken())))
    assert not list(folded.program.parameters())
    found = folded(**folded.encode(QUERIES))
    for query, row in zip(QUERIES, found, strict=True):
        assert (row - behind(model, "gpt2", whole_text(query))).abs().max() < 1e-5


def test_a_stored_text_is_loaded_without_reading_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, graph = reader("gpt2")
    folded = gp.precompute(gp.compile(graph, gp.Program([TOLD, SHOWN], align=LABELS)))
    wanted = folded(**folded.encode(QUERIES))
    gp.save(folded, tmp_path / "stored.safetensors")

    def refuse(*args: Any) -> Any:
        raise AssertionError("the source was run on the text")

    monkeypatch.setattr("graphprog.values.text_prefix.run_on", refuse)
    monkeypatch.setattr("graphprog.passes.kv.extend_kv.prove", refuse)
    again = gp.load(tmp_path / "stored.safetensors", graph)
    assert torch.equal(again(**again.encode(QUERIES)), wanted)


@pytest.mark.slow
def test_one_session_serves_stored_texts_of_one_length(tmp_path: Path) -> None:
    _, graph = reader("gpt2")
    tasks = []
    for order in ("given", "random"):
        shown = dataclasses.replace(SHOWN, order=order, seed=2)
        tasks.append(gp.precompute(gp.compile(graph, gp.Program([TOLD, shown], align=LABELS))))
    first, second = tasks
    gp.save(second, tmp_path / "second.safetensors")
    given = tuple(first.encode(QUERIES).values())
    path = tmp_path / "task.onnx"
    assert gp.backends.onnx.export(first, path, program="overridable", inputs=given).passed
    session = gp.backends.onnxruntime.Session(path, providers="cpu")
    other = second(*given).numpy()
    assert np.abs(first(*given).numpy() - other).max() > 1e-3
    found = session.run(*given, program=tmp_path / "second.safetensors")
    assert np.abs(np.asarray(found) - other).max() < 1e-5


def test_prefix_tuning_is_folded_in_a_part_of_the_layers_too() -> None:
    _, graph = reader("llama")
    task = gp.compile(
        graph,
        gp.Program(
            [
                gp.Prefix(at="attention[0:1]", length=3, value=gp.reparameterized.MLP(8)),
                gp.Prefix(at="attention[1:2]", length=5, positions="keep"),
            ]
        ),
    )
    folded = gp.precompute(task)
    given = task.encode(QUERIES)
    with torch.no_grad():
        assert torch.allclose(folded(**given).logits, task(**given).logits, atol=1e-6)


def test_other_parts_stay_as_they_are_when_a_prefix_is_folded() -> None:
    _, graph = reader("gpt2")
    steer = gp.Additive(at="hidden[0]", value=gp.Learnable("normal", 0.1, shape=(32,)))
    prompt = gp.Concatenative(at="embedding", length=4)
    task = gp.compile(
        graph, gp.Program([steer, prompt], align=gp.LinearHead(2, at="features", pool="last"))
    )
    folded = gp.precompute(task)
    given = task.encode(["a film"])
    with torch.no_grad():
        assert torch.allclose(folded(**given), task(**given), atol=1e-6)
    assert folded.trained_parameters() == task.trained_parameters() - 4 * 32


def test_prefixes_that_cannot_be_stored_are_refused() -> None:
    _, graph = reader("gpt2")
    with pytest.raises(ProgramError, match="no prefix to precompute"):
        gp.precompute(gp.compile(graph, gp.Program()))
    behind_first = gp.Concatenative(at="tokens", length=2, offset=1)
    with pytest.raises(ProgramError, match="only a prefix of a sequence"):
        gp.precompute(gp.compile(graph, gp.Program([behind_first])))
    several = gp.Program([gp.Concatenative(at="tokens", length=2), gp.Prefix(length=3)])
    with pytest.raises(ProgramError, match="several prefixes"):
        gp.precompute(gp.compile(graph, several))
    _, both = reader("bert")
    soft = gp.Concatenative(at="tokens", length=2, until="logits", init="vocabulary")
    with pytest.raises(ProgramError, match="depends on the query after it"):
        gp.precompute(gp.compile(both, gp.Program([soft])))


@pytest.mark.parametrize("kept", ["prefix", "learned-tokens", "stored"])
def test_text_is_written_as_a_folder_of_peft(kept: Any, tmp_path: Path) -> None:
    _, graph = reader("gpt2")
    program = gp.Program([TOLD])
    task = gp.compile(
        graph, gp.text.soft_prompt(program, "tokens") if kept == "learned-tokens" else program
    )
    task = gp.precompute(task) if kept == "stored" else task
    gp.peft.save(task, tmp_path, base_model_name_or_path="model", task_type="CAUSAL_LM")
    again = gp.peft.load(tmp_path, graph)
    given = task.encode(["a film", "cold as ice"])
    mask = given["attention_mask"].bool()
    length = given["input_ids"].shape[1]
    with torch.no_grad():
        found, wanted = again(**given).logits[:, -length:], task(**given).logits
    assert (found - wanted)[mask].abs().max() < 1e-5
