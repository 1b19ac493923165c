"""The example of a CLIP: its data, its training, and that any folder of one can take its place."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import graphprog as gp
from tests.support.example_modules import Example, modules_of


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Example]:
    with modules_of("05_vision_language", monkeypatch) as found:
        yield found


@pytest.fixture
def folder(example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CLIP of two steps of training, in a folder of the Hub."""
    monkeypatch.setattr(example.train, "PAIRS", 4)
    return example.train.main(2, 0, tmp_path / "model")


def test_no_digit_is_in_two_splits(example: Example) -> None:
    parts = example.images.digits()
    seen = [{row.numpy().tobytes() for row in ink} for ink, _ in parts.values()]
    assert [len(labels) for _, labels in parts.values()] == [900, 400, 497]
    assert len(set().union(*seen)) == sum(map(len, seen)) == 1797
    for seed in (0, 1):
        splits = example.run.Splits.drawn(seed, 16)
        for images, labels in (splits.train, splits.validation):
            assert len(set(labels.bincount().tolist())) == 1
            assert 0 <= float(images.min()) <= float(images.max()) <= 1
        assert len(splits.train[1]) == 160
        assert len(splits.validation[1]) == 80


def test_training_and_validation_pictures_are_of_other_digits(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example.images, "shifted", lambda ink, seed: ink)
    first, second = (example.run.Splits.drawn(seed, 16) for seed in (0, 1))
    train, validation, test = (
        {row.numpy().tobytes() for row in images}
        for images, _ in (first.train, first.validation, first.test)
    )
    assert not train & validation
    assert not (train | validation) & test
    assert not torch.equal(first.train[0], second.train[0])
    assert torch.equal(first.test[0], second.test[0])


def test_captions_say_what_is_shown(example: Example) -> None:
    images = example.images
    ink, labels = images.digits()["source"]
    shown = images.source(ink[:60], labels[:60], random.Random(0))
    assert shown.pictures.shape == (60, 3, 32, 32)
    assert 0 <= float(shown.pictures.min()) <= float(shown.pictures.max()) <= 1
    assert shown.true.diagonal().all()
    assert not shown.true.all(0).any()
    named = [
        (column, images.NAMES.index(word))
        for column, caption in enumerate(shown.captions)
        if not caption.startswith(images.SHAPES)  # which count rings and strokes
        for word in caption.split(" : ")[0].split()
        if word in images.NAMES
    ]
    assert len(named) > 20
    for column, digit in named:
        assert (labels[:60][shown.true[:, column]] == digit).all()
    plain = [column for column, digit in named if shown.captions[column].startswith("the number")]
    for column in plain:  # true of every picture of the digit
        digit = dict(named)[column]
        assert torch.equal(shown.true[:, column], labels[:60] == digit)


def test_training_knows_every_word_of_the_programs(example: Example) -> None:
    tokens, programs = example.train.tokenizer(), example.programs
    texts = [*programs.class_texts(programs.TEMPLATES + programs.DESCRIPTIONS), programs.CONTEXT]
    for text in texts:
        row = tokens(text)["input_ids"]
        assert tokens.unk_token_id not in row
        assert (row[0], row[-1]) == (tokens.bos_token_id, tokens.eos_token_id)
        assert max(row) == tokens.eos_token_id
    true = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    scores = torch.tensor([[9.0, 9.0], [-9.0, 9.0]])
    assert example.train.loss_of(scores, true) < example.train.loss_of(-scores, true)


def by_hand(folder: Path, texts: list[str], pictures: torch.Tensor) -> torch.Tensor:
    """Scores [N, K] of the model itself."""
    from transformers import AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(folder).eval()
    read = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    call: dict[str, Any] = {name: read[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        return model(**call, pixel_values=(pictures - 0.5) / 0.5).logits_per_image


@pytest.mark.slow
def test_any_clip_can_be_programmed(
    example: Example, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, run = example.programs, example.run
    every = programs.methods
    wanted = ("class names", "descriptions", "of both", "linear probe")
    chosen = [m for m in every(example.clip.load(folder)) if m.name in wanted]
    monkeypatch.setattr(programs, "methods", lambda clip: chosen)
    outputs = tmp_path / "made"
    rows = run.main(str(folder), epochs=1, shots=2, seeds=(0,), outputs=outputs)
    names = {"picture.png", "table.txt", "program.safetensors", "program.onnx"}
    assert {path.name for path in outputs.iterdir()} == names
    width = 64
    trained = {row.method.name: row.trained for row in rows}
    assert trained == {
        "class names": 0,
        "descriptions": 0,
        "of both": (8 + 4) * width,
        "linear probe": 10 * width + 10,
    }
    splits = run.Splits.drawn(0, 2)
    pictures, labels = splits.test
    for row, templates in zip(rows, (programs.TEMPLATES[:1], programs.DESCRIPTIONS), strict=False):
        scores = by_hand(folder, programs.class_texts(templates), pictures)
        found = scores.unflatten(1, (len(templates), 10)).mean(1).argmax(1)
        assert row.test == pytest.approx((found == labels).float().mean().item(), abs=0.003)
    session = gp.backends.onnxruntime.Session(outputs / "program.onnx")
    assert [spec.name for spec in session.inputs] == ["pixel_values"]
    assert session.run(pictures[:3]).shape == (3, 10)


def test_learnt_words_begin_as_a_photo_of_a(example: Example, folder: Path) -> None:
    clip, programs, images = example.clip, example.programs, example.images
    source = clip.load(folder)
    methods = {method.name: method for method in programs.methods(source)}
    task = gp.compile(source.graph, methods["of the text"].program)
    pictures = torch.rand(3, 3, 32, 32)
    want = by_hand(folder, [f"a photo of a {name}" for name in images.NAMES], pictures)
    torch.testing.assert_close(task(pictures), want, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_all_programs_read_pictures_alone(example: Example, folder: Path) -> None:
    source = example.clip.load(folder)
    for method in example.programs.methods(source):
        if method.kind == "texts" or method.name in ("of the text", "of both", "linear probe"):
            continue  # compiled above
        task = gp.compile(source.graph, method.program)
        assert [spec.name for spec in task.inputs] == ["pixel_values"], method.name
        assert task(torch.rand(2, 3, 32, 32)).shape == (2, 10)
        assert task.trained_parameters() > 0
        assert dataclasses.asdict(task.spec.contract)["labels"] == example.images.NAMES


def test_a_name_that_is_no_folder_says_so(example: Example, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="hf:owner/name"):
        example.run.main("clip-that-is-not-there", outputs=tmp_path)
