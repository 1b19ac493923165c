"""The examples with language models: what they train on, and that any model can take its place."""

from __future__ import annotations

import operator
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import graphprog as gp
from tests.support.example_modules import Example, modules_of


@pytest.fixture
def example(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Example]:
    with modules_of(request.param, monkeypatch) as found:
        yield found


demonstrations = pytest.mark.parametrize("example", ["03_demonstrations"], indirect=True)
thoughts = pytest.mark.parametrize("example", ["04_chain_of_thought"], indirect=True)
CALCULATE = {"plus": operator.add, "minus": operator.sub, "times": operator.mul}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A tiny GPT-2, random, and a tokenizer of bytes and letters, as a folder of the Hub."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    alphabet = {letter: n for n, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    letters = {f"Ġ{letter}": 256 + n for n, letter in enumerate("ABCDEFGH")}
    merges = [("Ġ", letter) for letter in "ABCDEFGH"]
    pieces = Tokenizer(models.BPE(vocab=alphabet | letters, merges=merges))
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=264, n_embd=16, n_layer=1, n_head=2, n_positions=512, initializer_range=0.5
    )
    folder = tmp_path / "tiny"
    GPT2LMHeadModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=pieces).save_pretrained(folder)
    return folder


def in_cache(checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a checkpoint that lies where the Hub's downloads do, without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository, commit = cache / "models--someone--tiny", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit, encoding="utf-8")
    (repository / "snapshots").mkdir()
    checkpoint.rename(repository / "snapshots" / commit)
    return "hf:someone/tiny"


@demonstrations
def test_mappings_of_the_test_are_never_trained_on(example: Example) -> None:
    symbols, train = example.symbols, example.train
    letters = torch.arange(len(symbols.LETTERS))
    every = torch.cartesian_prod(*[letters] * len(symbols.KINDS))
    share = symbols.held_out(every).float().mean().item()
    assert share == pytest.approx(1 / 8, abs=1e-3)
    generator, whole = torch.Generator().manual_seed(0), 0
    for _ in range(10):
        words, known = train.episodes(generator, 24, most=48.0, every_other=True)
        for row, own in zip(words // symbols.EACH, known, strict=True):
            mapping = dict(zip(row.tolist(), own.tolist(), strict=True))
            assert torch.equal(torch.tensor([mapping[kind] for kind in row.tolist()]), own)
            if len(mapping) == len(symbols.KINDS):
                whole += 1
                assert not symbols.held_out(torch.tensor([mapping[k] for k in sorted(mapping)]))
    assert whole > 150


@demonstrations
def test_no_word_that_is_asked_is_shown(example: Example) -> None:
    symbols = example.symbols
    generator = random.Random(0)
    lessons = [symbols.lesson(generator, 16) for _ in range(20)]
    assert len({one.mapping for one in lessons}) == 20
    for one in lessons:
        assert symbols.held_out(torch.tensor(one.mapping))
        assert not set(one.shown) & set(one.asked)
        assert len(set(one.shown) | set(one.asked)) == len(symbols.WORDS)
        shown = one.demonstrations(16).records
        for record in shown:
            kind = next(
                k for k, w in enumerate(symbols.KINDS.values()) if record["word"] in w.split()
            )
            assert record["letter"] == symbols.LETTERS[one.mapping[kind]]
        wrong = one.demonstrations(16, at_random=True).records
        assert [r["word"] for r in wrong] == [r["word"] for r in shown]
        assert wrong != shown
        assert one.knowable(0) == 1 / 8
    pairs = [
        (wrong["letter"], right["letter"])
        for one in lessons
        for wrong, right in zip(
            one.demonstrations(16, True).records, one.demonstrations(16).records, strict=True
        )
    ]
    assert sum(a == b for a, b in pairs) / len(pairs) == pytest.approx(1 / 8, abs=0.05)


@demonstrations
def test_the_model_is_trained_on_the_text_of_demonstrations(example: Example) -> None:
    train, symbols = example.train, example.symbols
    tokens = train.tokenizer()
    batches = train.batches(tokens, steps=8, seed=0)
    for _ in range(6):
        ids, targets = next(batches)
    text = tokens.decode(ids[1], skip_special_tokens=True)
    examples = [dict(zip(("word", "letter"), line.split(": "), strict=True)) for line in
                text.splitlines()]  # fmt: skip
    shown = gp.Demonstrations(examples, symbols.TEMPLATE, symbols.SEPARATOR)
    assert len(examples) == train.LINES
    assert shown.render({"word": "wolf"}).prefix == text
    assert tokens(text)["input_ids"] == ids[1].tolist()
    wanted = tokens.decode(targets[1][targets[1] >= 0])
    assert wanted.split() == [example["letter"] for example in examples]


@thoughts
def test_problems_of_the_test_are_never_trained_on(example: Example) -> None:
    arithmetic, train = example.arithmetic, example.train
    tokens = train.tokenizer()
    batches = train.batches(tokens, seed=0)
    parse = gp.Parse(arithmetic.ANSWER, type=int)
    styles, problems = set(), 0
    for _ in range(8):
        ids, targets = next(batches)
        for row, wanted in zip(ids, targets, strict=True):
            text = tokens.decode(row, skip_special_tokens=True)
            end = int((row != 0).nonzero().max()) + 1
            assert tokens(text)["input_ids"] == row[:end].tolist()
            assert "<unk>" not in text
            answers = tokens.decode(wanted[wanted >= 0])
            for line, answer in zip(text.splitlines(), answers.splitlines(), strict=True):
                question, written = re.fullmatch(r"Q: (.*?)\. A:(.*)", line).groups()
                start, *rest = question.removeprefix("Start with ").split(", ")
                operations = tuple((word, int(n)) for word, n in (one.split() for one in rest))
                assert not arithmetic.Problem(int(start), operations).held_out
                assert written == answer
                total, steps = int(start), []
                for word, number in operations:
                    before, total = total, CALCULATE[word](total, number)
                    steps.append((str(before), word, str(number), str(total)))
                assert parse(written) == total
                found = re.findall(r"(\d+) (\w+) (\d+) is (\d+)\.", written)
                assert found == (steps if arithmetic.TRIGGER in written else [])
                styles.add(arithmetic.TRIGGER in written)
                problems += 1
    assert styles == {True, False}
    assert problems > 300
    source = arithmetic.problems(random.Random(0), None, held_out=True)
    assert all(next(source).held_out for _ in range(20))


@demonstrations
def test_any_model_can_be_taught(
    example: Example, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = example.run
    name = in_cache(checkpoint, tmp_path / "cache", monkeypatch)
    rows = run.main(name, counts=(3,), lessons=1, seeds=(0,), outputs=tmp_path / "made")
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"picture.png", "table.txt"}
    assert [row.count for row in rows] == [3]
    lesson = example.symbols.lesson(random.Random(0), 3)
    for row in rows:
        shown = lesson.demonstrations(row.count)
        assert row.right == pytest.approx(by_hand(example, name, lesson, shown))


def by_hand(example: Example, name: str, lesson: Any, shown: gp.Demonstrations) -> float:
    """Accuracy of a model that reads every query with all that stands before it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(name.removeprefix("hf:"))
    tokens = AutoTokenizer.from_pretrained(name.removeprefix("hf:"))
    right = 0.0
    for word, answer in zip(lesson.queries, lesson.answers.tolist(), strict=True):
        ids = tokens(shown.render({"word": word}).text, return_tensors="pt")["input_ids"]
        letters = [tokens(f" {letter}")["input_ids"][0] for letter in example.symbols.LETTERS]
        with torch.no_grad():
            right += model(ids).logits[0, -1, letters].argmax().item() == answer
    return right / len(lesson.asked)


@thoughts
def test_any_model_can_be_asked(
    example: Example, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = example.run
    monkeypatch.setattr(run, "LONGEST", 6)
    methods = [
        method for method in run.methods(0) if method.name in ("trigger", "self-consistency")
    ]
    monkeypatch.setattr(run, "methods", lambda seed: methods)
    rows = run.main(str(checkpoint), lengths=(3,), each=2, seeds=(0,), outputs=tmp_path / "made")
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"picture.png", "table.txt"}
    assert [row.method for row in rows] == ["trigger", "self-consistency"]
    assert all(0 < row.tokens <= 6 for row in rows)
    assert all(row.unparsed == 1 for row in rows)  # six letters at random are no answer
    assert all(row.accuracy == 0 for row in rows)


@demonstrations
def test_a_name_that_is_no_folder_says_so(example: Example, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="hf:owner/name"):
        example.run.main("gpt2-that-is-not-there", outputs=tmp_path)


@pytest.mark.parametrize("example", ["03_demonstrations", "04_chain_of_thought"], indirect=True)
def test_training_leaves_a_whole_folder_or_none(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = example.train
    folder = tmp_path / "outputs" / "model"
    weights = [
        (train.main(2, seed, folder) / "model.safetensors").read_bytes() for seed in (0, 0, 1)
    ]
    assert weights[0] == weights[1] != weights[2]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.save_pretrained", fail)
    with pytest.raises(KeyboardInterrupt):
        train.main(2, 0, folder)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
