"""What an exported file says about itself, and what it checks itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import graphprog as gp
from graphprog.errors import BackendError
from tests.models.deployed_tasks import image_graph, image_program, text_graph, text_task

LABELS = ("cat", "dog", "owl")
CONTRACT = gp.Contract(space="unit", mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), labels=LABELS)


@pytest.fixture(scope="module")
def graph() -> gp.Graph:
    return image_graph()


@pytest.fixture(scope="module")
def task(graph: gp.Graph) -> gp.ReprogrammedModel:
    return gp.compile(graph, image_program(gp.LinearHead(3), CONTRACT))


def raw(path: Path, **feeds: np.ndarray) -> np.ndarray:
    """Run a file without any of graphprog's checks."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, feeds)[0]
    return found


@pytest.mark.parametrize("program", ["folded", "overridable"])
def test_rows_outside_of_the_range_come_out_as_nan(
    task: gp.ReprogrammedModel, tmp_path: Path, program: str
) -> None:
    path = tmp_path / "task.onnx"
    gp.backends.onnx.export(task, path, program=program, check_range=True)
    images = np.random.default_rng(0).random((6, 1, 8, 8), np.float32)
    expected = task(torch.from_numpy(images)).detach().numpy()
    images[1, 0, 7, 7], images[2, 0, 0, 0], images[4, 0, 3, 3] = 1.5, -0.5, np.nan
    found = raw(path, **{task.inputs[0].name: images})
    assert np.isnan(found[[1, 2, 4]]).all()
    np.testing.assert_allclose(found[[0, 3, 5]], expected[[0, 3, 5]], atol=1e-5)
    assert "come out as NaN" in onnx.load(path).doc_string


def test_without_a_range_there_is_nothing_to_check(tmp_path: Path) -> None:
    task = text_task(text_graph())
    with pytest.raises(BackendError, match=r"check_range=True needs a range(.|\n)*Contract\(range"):
        gp.backends.onnx.export(task, tmp_path / "task.onnx", check_range=True)
    assert not list(tmp_path.iterdir())


def test_a_file_says_in_words_what_goes_in_and_what_comes_out(
    task: gp.ReprogrammedModel, tmp_path: Path
) -> None:
    gp.backends.onnx.export(task, tmp_path / "task.onnx")
    model = onnx.load(tmp_path / "task.onnx")
    (image,), (logits,) = model.graph.input, model.graph.output
    assert image.doc_string == (
        "f32[batch, 1, 8, 8]: numbers in [0, 1], which the file normalizes itself."
    )
    assert logits.doc_string == (
        "one score per class and example; the largest is the predicted class: 0 cat, 1 dog, 2 owl."
    )
    assert model.doc_string.splitlines() == [
        "BranchedCnn with a program: 3 changes, and linear-head.",
        f"In: {image.name}, {image.doc_string}",
        f"Out: {logits.name}, {logits.doc_string}",
    ]
    gp.backends.onnx.export(text_task(text_graph()), tmp_path / "text.onnx")
    ids, present = onnx.load(tmp_path / "text.onnx").graph.input
    assert ids.doc_string == "i64[batch, S]: token ids from 0 to 49."
    assert present.doc_string == "i64[batch, S]: integers."


def test_probabilities_are_those_of_the_task_by_label(
    task: gp.ReprogrammedModel, tmp_path: Path
) -> None:
    gp.backends.onnx.export(task, tmp_path / "task.onnx")
    session = gp.backends.onnxruntime.Session(tmp_path / "task.onnx")
    images = torch.rand(5, 1, 8, 8)
    expected = task(images).softmax(1)
    found = session.predict(images, probabilities=True)
    assert session.predict(images) == [next(iter(row)) for row in found]
    for wrong in (3, [3], task):
        with pytest.raises(BackendError, match="a program is a name, a file, or tensors by name"):
            session.run(images, program=wrong)
    for row, shares in zip(found, expected, strict=True):
        assert sum(row.values()) == pytest.approx(1)
        assert list(row.values()) == sorted(row.values(), reverse=True)
        assert [row[label] for label in LABELS] == pytest.approx(shares.tolist(), abs=1e-5)


def test_each_row_has_the_labels_of_its_own_program(graph: gp.Graph, tmp_path: Path) -> None:
    tasks = {}
    for classes, labels in ((3, LABELS), (2, ("no", "yes"))):
        contract = gp.Contract("unit", mean=0.5, std=0.5, labels=labels)
        program = gp.Program([gp.Additive()], align=gp.LinearHead(classes), contract=contract)
        tasks[classes] = gp.compile(graph, program)
        gp.save(tasks[classes], tmp_path / f"{classes}.safetensors")
    gp.backends.onnx.export(tasks[3], tmp_path / "task.onnx", program="per_row", check_range=True)
    session = gp.backends.onnxruntime.Session(tmp_path / "task.onnx")
    images = torch.rand(3, 3, 16, 16)
    files = [str(tmp_path / f"{classes}.safetensors") for classes in (2, 3, 2)]
    found = session.predict(images, program=files, probabilities=True)
    for row, shares, classes in zip(found, images, (2, 3, 2), strict=True):
        expected = tasks[classes](shares[None]).softmax(1)[0].tolist()
        names = tasks[classes].spec.contract.labels
        assert [row[name] for name in names] == pytest.approx(expected, abs=1e-5)


def test_loading_files_prints_nothing(task: gp.ReprogrammedModel, tmp_path: Path) -> None:
    for program in ("folded", "overridable", "inputs"):
        gp.backends.onnx.export(task, tmp_path / f"{program}.onnx", program=program)
    gp.save(task, tmp_path / "task.safetensors")
    task.base.save(tmp_path / "model.graph")
    code = (
        "import graphprog as gp, torch\n"
        "graph = gp.Graph.load('model.graph')\n"
        "task = gp.load('task.safetensors', graph)\n"
        "task(torch.rand(2, 1, 8, 8))\n"
        "for name in ('folded', 'overridable', 'inputs'):\n"
        "    session = gp.backends.onnxruntime.Session(f'{name}.onnx')\n"
        "    given = {} if name == 'folded' else {'program': 'task.safetensors'}\n"
        "    session.run(torch.rand(2, 1, 8, 8), **given)\n"
    )
    root = str(Path(gp.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert (done.stdout, done.stderr) == ("", "")
