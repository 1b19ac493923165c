"""The examples do what their tables say, on fewer epochs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support.example_modules import Example, modules_of


@pytest.fixture
def example(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Example]:
    with modules_of(request.param, monkeypatch) as found:
        yield found


classifier = pytest.mark.parametrize("example", ["01_reprogram_classifier"], indirect=True)
encoder = pytest.mark.parametrize("example", ["02_prompt_a_text_encoder"], indirect=True)


@classifier
def test_no_picture_is_in_two_splits(example: Example) -> None:
    data = example.data
    for target, examples in ((data.digits(), 1797), (data.squares(), 16 + 120 + 8 * 200)):
        splits = (target.train, target.validation, target.test)
        pictures = [{image.numpy().tobytes() for image in images} for images, _ in splits]
        assert sum(len(labels) for _, labels in splits) == examples
        if target.name == "squares":
            assert not pictures[0] & pictures[1] | (pictures[0] | pictures[1]) & pictures[2]
        for images, labels in splits:
            assert images.dtype.is_floating_point
            assert 0 <= float(images.min()) <= float(images.max()) <= 1
            assert set(labels.tolist()) == set(range(10))


@pytest.mark.slow
@classifier
def test_the_classifier_is_reprogrammed(example: Example, tmp_path: Path) -> None:
    rows = example.run.main(epochs=1, longer=2, outputs=tmp_path)
    assert len(rows) == 16
    trained = {row.method: row.trained for row in rows if row.target == "digits"}
    assert trained["Bayesian map"] == 3 * 64 * 64
    assert trained["linear on logits"] == 3 * 64 * 64 + 10_010
    best = max(row.test for row in rows if row.target == "digits")
    assert best > 0.75
    made = {path.name for path in tmp_path.iterdir()}
    for name in ("digits", "squares"):
        drawn = ("_curves.png", "_program.png", "_mapping.png", "_picture.png")
        assert {name + kind for kind in (".safetensors", ".onnx", *drawn)} <= made
    assert "table.txt" in made


SIZES = {"train": 9, "validation": 3, "test": 5}


@encoder
def test_no_module_and_no_docstring_is_in_two_splits(example: Example) -> None:
    data = example.data
    splits = data.docstrings(SIZES)
    assert splits == data.docstrings(SIZES)
    assert splits != data.docstrings(SIZES, seed=1)
    every = [one for some in splits.values() for one in some]
    for name, some in splits.items():
        labels = torch.tensor([one.label for one in some])
        assert labels.bincount().tolist() == [SIZES[name]] * len(data.LIBRARIES)
    for part in ("module", "text"):
        seen = [{getattr(one, part) for one in some} for some in splits.values()]
        assert sum(map(len, seen)) == len(set().union(*seen)), part
    assert len({one.text.lower() for one in every}) == len(every)


@encoder
def test_docstrings_do_not_name_their_library(example: Example) -> None:
    data = example.data
    text = """Return a :class:`~numpy.ndarray` for NumPy, like np.array of scikit-learn.

    See https://pytorch.org or the **guide**.

    Parameters
    ----------
    x : sympy.Symbol
    """
    assert data.prose(text) == "Return a . for , like array of . See or the guide ."
    for some in data.docstrings(SIZES).values():
        for one in some:
            words = one.text.lower()
            assert not any(name in words for name in data.LIBRARIES), one
            assert len(words.split()) >= 6


@pytest.mark.slow
@encoder
def test_the_text_encoder_is_prompted(example: Example, tmp_path: Path) -> None:
    sizes = {"train": 60, "validation": 15, "test": 30}
    rows = {row.method: row for row in example.run.main(sizes, epochs=1, outputs=tmp_path)}
    head = 8 * 384 + 8
    assert {name: row.trained for name, row in rows.items()} == {
        "zero-shot by description": 0,
        "linear head": head,
        "prompt tuning": head + 8 * 384,
        "deep prompts": head + 6 * 8 * 384,
    }
    assert all(row.test > 0.3 for row in rows.values())  # chance is 1 in 8
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {"docstrings.safetensors", "docstrings.onnx", "picture.png", "table.txt"}
