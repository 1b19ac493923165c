"""The main example does what its table says, on fewer epochs."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples" / "01_reprogram_classifier"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.mark.usefixtures("example")
def test_no_picture_is_in_two_splits() -> None:
    import data

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
@pytest.mark.usefixtures("example")
def test_the_example_runs(tmp_path: Path) -> None:
    import run

    rows = run.main(epochs=1, longer=2, outputs=tmp_path)
    assert len(rows) == 16
    trained = {row.method: row.trained for row in rows if row.target == "digits"}
    assert trained["Bayesian map"] == 3 * 64 * 64
    assert trained["linear on logits"] == 3 * 64 * 64 + 10_010
    best = max(row.test for row in rows if row.target == "digits")
    assert best > 0.75
    made = {path.name for path in tmp_path.iterdir()}
    for name in ("digits", "squares"):
        kinds = (".safetensors", ".onnx", "_curves.png", "_program.png", "_mapping.png")
        assert {name + kind for kind in kinds} <= made
    assert "table.txt" in made
