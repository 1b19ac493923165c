"""The example that traces facts: its list, its pairs, and a small model that is traced."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

import graphprog as gp
from tests.support.byte_tokenizer import Bytes
from tests.support.example_modules import Example, modules_of


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Example]:
    with modules_of("08_trace_facts", monkeypatch) as found:
        yield found


def test_pairs_are_of_known_facts_with_two_answers(example: Example) -> None:
    facts = example.facts
    assert len(facts.CAPITALS) > 80
    known = [facts.Fact(f"place {n}", f"capital {n}", n % 30) for n in range(45)]
    pairs = facts.pairs(known, 40, seed=0)
    assert pairs == facts.pairs(known, 40, seed=0) != facts.pairs(known, 40, seed=1)
    assert len({fact for fact, _ in pairs}) == len({other for _, other in pairs}) == 40
    assert all(fact.answer != other.answer for fact, other in pairs)
    with pytest.raises(ValueError, match="knows 39 of the facts; 40 are needed"):
        facts.pairs(known[:39], 40, seed=0)


def test_a_text_says_a_capital_if_it_begins_with_the_word(example: Example) -> None:
    says = example.facts._says
    assert says(" Paris.\n", "Paris")
    assert says(" New Delhi", "New Delhi")
    assert not says(" Belgrades", "Belgrade")
    assert not says(" the capital Paris", "Paris")
    assert not says(" Kuala", "Kuala Lumpur")


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


def test_facts_are_known_if_the_model_writes_them(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = example.facts
    (written,) = gp.generate(small(), ["ab is"], max_new_tokens=1, use_cache=False)
    monkeypatch.setattr(facts, "PROMPT", "{} is")
    monkeypatch.setattr(facts, "CAPITALS", {"ab": "right", "ac": "wrong", "longer": "right"})
    monkeypatch.setattr(facts, "_says", lambda text, capital: capital == "right")
    assert facts.known(small()) == [facts.Fact("ab", "right", written.ids[0])]  # of five tokens


def test_a_small_model_is_traced_and_drawn(
    example: Example, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    facts, run = example.facts, example.run
    monkeypatch.setattr(facts, "PROMPT", "{} is")
    known = [facts.Fact(name, "", number) for number, name in enumerate(("ab", "ac", "ad", "bd"))]
    pairs = facts.pairs(known, 4, seed=0)
    found = run.trace(small(), pairs, "a seed")
    maps = [
        gp.patch(small(), run.call(small(), a), run.call(small(), b), metric=(a.answer, b.answer))
        for a, b in pairs
    ]
    expected = torch.stack([one.effects for one in maps]).mean(0)
    assert torch.equal(found.measured.effects, expected)
    assert found.heads.effects.shape == (6, 5)
    assert len(found.each) == 4
    names = list(dict.fromkeys(name for name, *_ in found.heads.largest(3)))
    heads = run.patch_heads(small(), pairs, names)
    guess = run.rows_of(found.heads, names)
    assert heads.effects.shape == guess.effects.shape
    path = tmp_path / "picture.png"
    example.pictures.draw(found.measured, found.estimated, heads, guess, path)
    assert path.stat().st_size > 10_000
    monkeypatch.setattr(run, "SEEDS", (0,))
    assert run.table([found]).row_count == 1
