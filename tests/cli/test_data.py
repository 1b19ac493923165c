"""Data by name: what each reader returns, how splits are made, and random changes of images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile
import torch

from graphprog.cli.config.schema import Data
from graphprog.cli.data.audio import AudioForm
from graphprog.cli.data.augment import change_of, changed
from graphprog.cli.data.classes import classes_of, numbered, numbers
from graphprog.cli.data.images import ImageForm
from graphprog.cli.data.splits import read_examples, read_splits
from graphprog.errors import CaptureError, DataError


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])


def section(train: str, **settings: Any) -> Data:
    return Data(train=train, **settings)


def test_tables_have_texts_files_or_numbers() -> None:
    Path("t.csv").write_text('text,label\n"a, b",good\nc,bad\n', "utf-8")
    found = read_examples("t.csv", section("t.csv"))
    assert (found.kind, [*found.inputs], classes_of(found, ())) == (
        "text",
        ["a, b", "c"],
        ("bad", "good"),
    )
    assert numbered(found, ("bad", "good")).tolist() == [1, 0]
    Path("n.jsonl").write_text('{"x": 1, "y": 2.5, "z": 7}\n{"x": 3, "y": 4, "z": 8}\n', "utf-8")
    found = read_examples("n.jsonl", section("n.jsonl", input=["x", "y"], label="z"))
    assert (found.kind, np.asarray(found.inputs).tolist()) == ("array", [[1, 2.5], [3, 4]])
    assert numbers(found).tolist() == [[7], [8]]
    Path("f.tsv").write_text("file\tlabel\na.wav\t0\nb.wav\t1\n", "utf-8")
    found = read_examples("f.tsv", section("f.tsv"))
    assert (found.kind, [*found.inputs]) == ("audio", [Path("a.wav"), Path("b.wav")])
    Path("bad.csv").write_text("x,y,label\n1,2,a\n1,two,b\n", "utf-8")
    with pytest.raises(DataError, match="row 2: y is 'two', not a number"):
        read_examples("bad.csv", section("bad.csv", input=["x", "y"]))
    Path("ragged.csv").write_text("x,label\n1,2\n1\n", "utf-8")
    with pytest.raises(DataError, match=r"ragged\.csv: line 3 has more or fewer cells"):
        read_examples("ragged.csv", section("ragged.csv"))


def test_arrays_of_bytes_are_images() -> None:
    np.savez("a.npz", images=np.zeros((4, 5, 6, 3), np.uint8), labels=np.array([0, 1, 1, 0]))
    found = read_examples("a.npz", section("a.npz"))
    assert (found.kind, len(found), found.labels) == ("image", 4, [0, 1, 1, 0])
    np.save("x.npy", np.zeros((4, 7), np.float32))
    np.save("y.npy", np.arange(4))
    found = read_examples("x.npy", section("x.npy", label="y.npy"))
    assert (found.kind, found.labels) == ("array", [0, 1, 2, 3])
    with pytest.raises(DataError, match="where are the labels"):
        read_examples("x.npy", section("x.npy"))


def test_a_data_set_on_disk_has_names_and_splits() -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    rows = {"text": ["a", "b"], "label": [1, 0]}
    made = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": made, "test": made.select([0])}).save_to_disk("saved")
    found = read_examples("saved", section("saved"))
    assert (found.kind, [*found.inputs], found.classes) == ("text", ["a", "b"], ("bad", "good"))
    assert numbered(found, ("good", "bad")).tolist() == [0, 1]
    assert len(read_examples("hf:saved#split=test", section("saved"))) == 1
    with pytest.raises(DataError, match="has no split 'tst'; did you mean test"):
        read_examples("hf:saved#split=tst", section("saved"))


def test_a_function_returns_data() -> None:
    Path("own_data.py").write_text(
        "import torch\n\ndef pair():\n    return torch.zeros(6, 3), torch.tensor([0, 1] * 3)\n"
    )
    found = read_examples("own_data:pair", section("own_data:pair"))
    assert (found.kind, found.labels) == ("array", [0, 1] * 3)


def test_no_example_is_in_two_splits_and_classes_keep_their_shares() -> None:
    splits = read_splits(section("sklearn:iris", validation=0.2, test=0.4), seed=3)
    assert splits.validation is not None
    assert splits.test is not None
    parts = (splits.train, splits.validation, splits.test)
    rows = [{int(number) for number in part.inputs.numbers} for part in parts]  # type: ignore[union-attr]
    assert sum(map(len, rows)) == len(set.union(*rows)) == 150
    for part, count in zip(parts, (20, 10, 20), strict=True):
        assert [[*part.labels].count(label) for label in range(3)] == [count] * 3
    again = read_splits(section("sklearn:iris", validation=0.2, test=0.4), seed=3)
    assert again.test is not None
    assert [*again.test.labels] == [*splits.test.labels]


def test_audio_is_mono_at_the_rate_of_the_model() -> None:
    time = np.arange(8000) / 8000
    stereo = np.stack([np.sin(2 * np.pi * 100 * time), np.zeros(8000)], 1)
    soundfile.write("tone.wav", stereo, 8000, subtype="FLOAT")
    wave = AudioForm(16000, 20000).values(Path("tone.wav"), "tone.wav")
    assert wave.shape == (20000,)
    assert not wave[16000:].any()
    expected = np.sin(2 * np.pi * 100 * np.arange(16000) / 16000) / 2
    np.testing.assert_allclose(wave[1000:15000], expected[1000:15000], atol=2e-3)
    Path("bad.wav").write_bytes(b"no sound")
    with pytest.raises(DataError, match=r"bad\.wav: cannot be decoded as audio"):
        AudioForm(16000).values(Path("bad.wav"), "bad.wav")


@pytest.mark.parametrize("scheme", ["torchvision", "albumentations"])
def test_images_are_changed_by_name(scheme: str) -> None:
    flip = "RandomHorizontalFlip" if scheme == "torchvision" else "HorizontalFlip"
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    always = change_of(f"{scheme}:{flip}", {"p": 1.0})
    np.testing.assert_array_equal(changed(image, [always], "one"), image[:, ::-1])
    random = change_of(f"{scheme}:{flip}", {"p": 0.5})
    drawn = []
    for _ in range(2):
        torch.manual_seed(4)
        drawn.append([changed(image, [random], "one").tolist() for _ in range(12)])
    assert drawn[0] == drawn[1]  # PyTorch's seed decides
    assert len({str(one) for one in drawn[0]}) == 2
    with pytest.raises(DataError, match="has no transform Flp"):
        change_of(f"{scheme}:Flp", {})


def test_a_missing_library_is_an_error_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "albumentations", None)
    with pytest.raises(CaptureError, match="pip install albumentations"):
        change_of("albumentations:Rotate", {})


def test_arrays_of_every_layout_become_one_form() -> None:
    form = ImageForm(3, 4, 4)
    gray = np.full((4, 4), 255, np.uint8)
    for image in (gray, gray[None], gray[..., None], np.stack([gray] * 3)):
        values = form.values(form.pixels(image, "one"))
        assert values.shape == (3, 4, 4)
        assert (values == 1).all()
