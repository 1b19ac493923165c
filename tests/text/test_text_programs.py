"""Text as a program of a graph: demonstrations in memory, against the whole text read eagerly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import graphprog as gp
from graphprog.errors import DataError, FileError, ProgramError
from tests.models.text_models import (
    CAUSAL,
    QUERIES,
    REVIEWS,
    SHOWN,
    TOLD,
    alone,
    behind,
    opened,
    reader,
    tokenizer,
    whole_text,
)


@pytest.mark.parametrize("name", [*CAUSAL, "closing"])
def test_demonstrations_are_remembered_and_the_query_alone_is_read(name: str) -> None:
    model, graph = reader(name)
    task = gp.compile(graph, gp.Program([TOLD, SHOWN], align=gp.LastToken()))
    given = task.encode(QUERIES)
    found = task(**given)
    assert found.shape == (3, 400)
    for query, row in zip(QUERIES, found, strict=True):
        assert (row - behind(model, name, whole_text(query))).abs().max() < 1e-5
    whole = [len(opened(name, whole_text(query))) for query in QUERIES]
    read = given["attention_mask"].sum(1).tolist()
    assert [count - own for count, own in zip(whole, read, strict=True)] == [
        len(task.prompt.prefix_ids)
    ] * 3
    assert len(task.prompt.prefix_ids) > 30
    assert max(read) < 30
    assert not list(task.program.parameters())


@pytest.mark.parametrize("name", CAUSAL)
def test_kept_as_text_it_is_the_same_with_nothing_remembered(name: str) -> None:
    model, graph = reader(name)
    parts = [dataclasses.replace(part, kept="text") for part in (TOLD, SHOWN)]
    task = gp.compile(graph, gp.Program(parts, align=gp.LastToken()))
    assert task.prompt is not None
    assert task.prompt.prefix_ids == ()
    assert not list(task.program.children()) or [*dict(task.program.named_children())] == ["align"]
    for query, row in zip(QUERIES, task(**task.encode(QUERIES)), strict=True):
        assert (row - behind(model, name, whole_text(query))).abs().max() < 1e-5


def test_queries_are_texts_or_fields_and_inputs_go_by_name() -> None:
    _, graph = reader("gpt2")
    task = gp.compile(graph, gp.Program([SHOWN]))
    plain, fields = task.encode(QUERIES), task.encode([{"text": query} for query in QUERIES])
    assert list(plain) == ["input_ids", "attention_mask"] == [one.name for one in task.inputs]
    assert all(torch.equal(plain[name], fields[name]) for name in plain)
    by_place = task(*plain.values()).logits
    assert torch.equal(task(**plain).logits, by_place)
    with task.disabled():
        assert task(**plain).logits.shape == by_place.shape
    assert task.tokenizer is tokenizer("gpt2")


def test_without_text_parts_queries_are_plain() -> None:
    model, graph = reader("llama")
    task = gp.compile(graph, gp.Program(align=gp.LastToken()))
    found = task(**task.encode(["Q: 23 + 47 = ", "a film"]))
    assert (found[0] - alone(model, "llama", "Q: 23 + 47 =")[-1]).abs().max() < 1e-5
    assert (found[1] - alone(model, "llama", "a film")[-1]).abs().max() < 1e-5
    with pytest.raises(DataError, match="the program has no template"):
        task.encode([{"text": "a"}])
    with pytest.raises(DataError, match="queries must be a list"):
        task.encode("a film")


def test_nearest_demonstrations_stand_in_each_query_behind_a_remembered_instruction() -> None:
    model, graph = reader("gpt2")

    def embed(texts: list[str]) -> Any:
        return np.array([[text.count(sign) for sign in "aeiou"] for text in texts])

    nearest = dataclasses.replace(SHOWN, order="nearest", count=2)
    task = gp.compile(graph, gp.Program([TOLD, nearest], align=gp.LastToken()))
    assert task.prompt is not None
    kept = tokenizer("gpt2").decode(task.prompt.prefix_ids)
    assert kept.startswith("Is the review good or bad?")
    assert "funny" not in kept
    found = task(**task.encode(QUERIES, embed=embed))
    for query, row in zip(QUERIES, found, strict=True):
        (rendered,) = nearest.render_all([{"text": query}], embed=embed)
        text = f"{TOLD.text}{TOLD.separator}{rendered.text}"
        assert (row - behind(model, "gpt2", text)).abs().max() < 1e-5
    with pytest.raises(ProgramError, match="needs an embedding"):
        task.encode(QUERIES)


def test_an_instruction_behind_is_read_with_the_query() -> None:
    model, graph = reader("gpt2")
    last = gp.Instruction("Say which it is.", place="after", separator="\n")
    task = gp.compile(graph, gp.Program([TOLD, last], align=gp.LastToken()))
    found = task(**task.encode(["a film"]))
    text = "Is the review good or bad?\n\na film\nSay which it is."
    assert (found[0] - behind(model, "gpt2", text)).abs().max() < 1e-5


@pytest.mark.parametrize("kept", ["prefix", "text"])
def test_demonstrations_beyond_a_limit_are_dropped_whole(kept: Any) -> None:
    _, graph = reader("gpt2")
    part = dataclasses.replace(SHOWN, limit=60, reserve=20, kept=kept)
    task = gp.compile(graph, gp.Program([TOLD, part]))
    assert task.prompt is not None
    (text,) = task.prompt.texts(QUERIES[:1])
    own = text if kept == "text" else text.removesuffix(f"Review: {QUERIES[0]}\nSentiment:")
    shown = [f"Review: {one['text']}\nSentiment: {one['label']}\n\n" for one in REVIEWS]
    dropped = 4 - own.count("Sentiment: ")
    assert 0 < dropped < 4
    assert own.startswith("Is the review good or bad?\n\n" + "".join(shown[dropped:]))
    assert len(opened("gpt2", own)) <= 40
    assert len(opened("gpt2", shown[dropped - 1] + own)) > 40
    small = dataclasses.replace(part, limit=25)
    with pytest.raises(DataError, match="without demonstrations"):
        gp.compile(graph, gp.Program([TOLD, small])).encode(QUERIES[1:2])


def test_a_text_that_merges_with_the_query_is_left_to_it() -> None:
    model, graph = reader("gpt2")
    joined = gp.Demonstrations(REVIEWS, gp.Template("{text} ={label}"), separator=" ")
    task = gp.compile(graph, gp.Program([joined], align=gp.LastToken()))
    assert task.prompt is not None
    kept = tokenizer("gpt2").decode(task.prompt.prefix_ids)
    assert kept.endswith("=bad"), "the space belongs to the word that follows"
    (text,) = task.prompt.texts(["a film"])
    found = task(**task.encode(["a film"]))
    assert (found[0] - behind(model, "gpt2", text)).abs().max() < 1e-5


def test_a_query_that_changes_the_tokens_of_the_memory_is_refused() -> None:
    class Greedy:
        """It joins everything in front of an exclamation mark."""

        def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
            return {"input_ids": [9] if text.endswith("!") else [ord(sign) % 256 for sign in text]}

    _, graph = reader("gpt2")
    own = dataclasses.replace(graph, tokenizer=Greedy())
    task = gp.compile(own, gp.Program([gp.Instruction("Say")]))
    assert task.encode(["abc"])["input_ids"].shape == (1, 3)
    with pytest.raises(DataError, match="the prefix has other tokens"):
        task.encode(["abc!"])


def test_saved_with_its_text_and_loaded_with_the_same_tokenizer_alone(tmp_path: Path) -> None:
    _, graph = reader("gpt2")
    program = gp.Program([TOLD, SHOWN], align=gp.Verbalizer({"good": " good", "bad": " bad"}))
    task = gp.compile(graph, program)
    gp.save(task, tmp_path / "task.safetensors")
    again = gp.load(tmp_path / "task.safetensors", graph)
    assert again.spec == task.spec == program
    given = task.encode(QUERIES)
    assert torch.equal(again(**again.encode(QUERIES)), task(**given))
    assert (tmp_path / "task.safetensors").stat().st_size < 5_000
    none = dataclasses.replace(graph, tokenizer=None)
    with pytest.raises(FileError, match="the graph has none"):
        gp.load(tmp_path / "task.safetensors", none)
    other = dataclasses.replace(graph, tokenizer=tokenizer("llama"))
    with pytest.raises(FileError, match="another tokenizer"):
        gp.load(tmp_path / "task.safetensors", other)


def test_a_few_shot_classifier_is_one_file_that_reads_the_query(tmp_path: Path) -> None:
    model, graph = reader("llama")
    labels = gp.Verbalizer({"good": " good", "bad": " bad"})
    task = gp.compile(graph, gp.Program([TOLD, SHOWN], align=labels))
    given = tuple(task.encode(QUERIES).values())
    assert gp.backends.onnx.export(task, tmp_path / "few.onnx", inputs=given).passed
    session = gp.backends.onnxruntime.Session(tmp_path / "few.onnx", providers="cpu")
    assert session.labels == ("good", "bad")
    found = np.asarray(session.run(*given))
    ids = [tokenizer("llama").convert_tokens_to_ids(word) for word in ("▁good", "▁bad")]
    for query, row in zip(QUERIES, found, strict=True):
        wanted = behind(model, "llama", whole_text(query))[ids]
        assert np.abs(row - wanted.numpy()).max() < 1e-5
