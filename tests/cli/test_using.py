"""Commands around a run: init, predict, push and pull; generate."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import graphprog as gp
from graphprog.cli.main import main
from tests.models.corner_models import ResidualNet
from tests.support.environments import ROOT, run

GRAPHPROG: list[str | Path] = [sys.executable, "-m", "graphprog"]
COLORS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a folder of images of three colors, and a head trained on them."""
    made = tmp_path_factory.mktemp("using")
    torch.manual_seed(0)
    hints = {"mean": 0.5, "std": 0.25}
    graph = gp.capture(ResidualNet().eval(), (torch.zeros(2, 3, 8, 8),), hints=hints)
    graph.save(made / "net.graph")
    noise = np.random.default_rng(0)
    for name, color in COLORS.items():
        (made / "colors" / name).mkdir(parents=True)
        for number in range(8):
            pixels = np.clip(np.array(color) + noise.integers(-60, 60, (20, 24, 3)), 0, 255)
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(made / "colors" / name / f"{number}.png")
    flags = ["--model", "net.graph", "--data", "colors", "--method", "linear"]
    done = run([*GRAPHPROG, "init", "colors.toml", *flags], made, ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    text = (made / "colors.toml").read_text(encoding="utf-8")
    assert "\n# Passes over the training data.\nepochs = 20\n" in text
    assert "\n# patience =\n" in text
    augmented = '[[data.augment]]\nname = "albumentations:HorizontalFlip"\n'
    text = text.replace("# [[data.augment]]\n", augmented)
    (made / "colors.toml").write_text(text, encoding="utf-8")
    settings = ["--set", "train.lr=0.3", "--set", "train.epochs=30", "--quiet"]
    done = run([*GRAPHPROG, "train", "colors.toml", *settings], made, ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    return made


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words]) == 0
    return capsys.readouterr().out


def test_init_asks_three_questions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = "net.graph\nsklearn:digits\n\n"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.stdin", io.StringIO(questions))
        assert main(["init", "asked.toml"]) == 0
    assert capsys.readouterr().err.count("?") == 3
    assert 'name = "blm"' in Path("asked.toml").read_text(encoding="utf-8")
    assert main(["init", "asked.toml"]) == 2
    assert "asked.toml: is there already" in capsys.readouterr().err
    flags = ["--model", "net.grph", "--data", "colours", "--method", "linear"]
    assert main(["init", "other.toml", *flags]) == 2
    said = capsys.readouterr().err
    assert "other.toml: 2 mistakes" in said
    assert not Path("other.toml").exists()


def test_images_of_a_folder_are_labeled(folder: Path) -> None:
    """Two files and a folder; the command is a process of its own."""
    files = ["colors/red/0.png", "colors/blue"]
    done = run([*GRAPHPROG, "predict", "runs/colors", *files, "--format", "csv"], folder, ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    head, *rows = csv.reader(done.stdout.splitlines())
    assert head == ["row", "label", "probability"]
    assert [Path(row[0]).name for row in rows] == ["0.png", *(f"{n}.png" for n in range(8))]
    assert [row[1] for row in rows] == ["red", *["blue"] * 8]


def test_an_exported_file_gives_the_same_labels(capsys: pytest.CaptureFixture[str]) -> None:
    program = "runs/colors/program.safetensors"
    told(capsys, "export", "net.graph", "--program", program, "-o", "colors.onnx")
    own, other = (
        json.loads(told(capsys, "predict", task, "colors", "--format", "json"))
        for task in ("runs/colors", "colors.onnx")
    )
    assert len(own) == 24
    for one, two in zip(own, other, strict=True):
        assert (one["row"], one["label"]) == (two["row"], two["label"])
        assert one["probabilities"] == pytest.approx(two["probabilities"], rel=1e-3, abs=1e-5)


def test_the_images_are_read_as_pillow_reads_them(capsys: pytest.CaptureFixture[str]) -> None:
    task = gp.load("runs/colors/program.safetensors", gp.Graph.load("net.graph"))
    image = Image.open("colors/green/3.png").resize((8, 8), Image.Resampling.BICUBIC)
    values = torch.tensor(np.array(image)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = task(values).softmax(1)[0].tolist()
    text = told(capsys, "predict", "runs/colors", "colors/green/3.png", "--format", "json")
    ((found,)) = json.loads(text)
    assert [found["probabilities"][name] for name in COLORS] == pytest.approx(expected, rel=1e-5)


def test_tables_name_images_and_arrays_are_rows(capsys: pytest.CaptureFixture[str]) -> None:
    Path("some.csv").write_text("file,label\ncolors/red/1.png,?\ncolors/blue/2.png,?\n", "utf-8")
    lines = told(capsys, "predict", "runs/colors", "some.csv").splitlines()[2:]
    assert [line.split()[:3] for line in lines] == [["row", "1", "red"], ["row", "2", "blue"]]
    np.save("rows.npy", np.ones((2, 3, 8, 8), np.float32) * np.array([0, 1, 0])[:, None, None])
    text = told(capsys, "predict", "runs/colors", "rows.npy")
    assert [line.split()[:2] for line in text.splitlines()[2:]] == [["0", "green"], ["1", "green"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runs/colors", "absent.png"], "absent.png: no such file or folder"),
        (["runs/colors", "colors.toml"], "colors.toml: a .toml is not data"),
        (["runs/absent", "colors"], "runs/absent: not the folder of a run"),
        (["runs/colors", "broken.png"], "broken.png: cannot be decoded as an image"),
    ],
)
def test_a_mistake_of_predict_is_one_message(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("broken.png").write_bytes(b"not an image")
    assert main(["predict", *words]) == 2
    assert f"error: {message}" in capsys.readouterr().err.replace("broken.png: broken", "broken")


def test_a_program_is_pushed_and_pulled(folder: Path) -> None:
    done = run([*GRAPHPROG, "push", "runs/colors", "./shared"], folder, ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "shared" / "README.md").is_file()
    done = run([*GRAPHPROG, "pull", "./shared", "-o", "mine.safetensors"], folder, ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    trained = (folder / "runs/colors/program.safetensors").read_bytes()
    assert (folder / "mine.safetensors").read_bytes() == trained
    done = run([*GRAPHPROG, "pull", "./absent"], folder, ROOT)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
