"""Files without a program, which every call gives, for runtimes that replace no initializer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import graphprog as gp
from graphprog.backends.onnxruntime import Session
from graphprog.errors import BackendError
from tests.models.deployed_tasks import image_graph, image_task, text_batch, text_graph, text_task

pytestmark = pytest.mark.xdist_group("deployed-onnx")


@pytest.fixture(scope="module")
def graph() -> gp.Graph:
    return image_graph()


@pytest.mark.parametrize(
    "align", [gp.BayesianMap(classes=5), gp.LinearHead(5)], ids=["map", "head"]
)
def test_every_call_gives_the_program(graph: gp.Graph, align: gp.Alignment, tmp_path: Path) -> None:
    path = tmp_path / "open.onnx"
    tasks = [image_task(graph, align, seed) for seed in range(2)]
    report = gp.backends.onnx.export(tasks[0], path, program="inputs")
    assert report.passed
    assert report.batch_sizes == (1, 5)
    session = Session(path, providers="cpu")
    assert session.program_inputs == {
        name for name in tasks[0].program_state() if name != "program.align.refreshed"
    }
    images = torch.rand(3, 1, 8, 8)
    for number, task in enumerate(tasks):
        saved = tmp_path / f"{number}.safetensors"
        gp.save(task, saved)
        assert np.allclose(session.run(images, program=saved), task(images).detach(), atol=1e-5)
    assert not np.allclose(*(task(images).detach() for task in tasks), atol=1e-2)


def test_the_file_holds_nothing_of_the_program_and_all_that_is_fixed(
    graph: gp.Graph, tmp_path: Path
) -> None:
    path = tmp_path / "open.onnx"
    gp.backends.onnx.export(image_task(graph), path, program="inputs")
    model = onnx.load(path).graph
    held = {tensor.name for tensor in model.initializer}
    asked = {value.name for value in model.input}
    assert "program.additive.mask" in held - asked
    assert "program.additive.value" in asked - held
    assert not held & asked


def test_a_call_without_a_program_is_refused(graph: gp.Graph, tmp_path: Path) -> None:
    path = tmp_path / "open.onnx"
    task = image_task(graph)
    gp.backends.onnx.export(task, path, program="inputs")
    session = Session(path, providers="cpu")
    with pytest.raises(BackendError, match="it holds no program"):
        session.run(torch.rand(1, 1, 8, 8))
    value = task.program_state()["program.additive.value"]
    with pytest.raises(BackendError, match=r"the program has no program\.additive_1\.value"):
        session.run(torch.rand(1, 1, 8, 8), program={"program.additive.value": value})


def test_texts_of_any_length(tmp_path: Path) -> None:
    path = tmp_path / "open.onnx"
    task = text_task(text_graph())
    gp.backends.onnx.export(task, path, program="inputs")
    session = Session(path, providers="cpu")
    for rows, length in ((1, 4), (3, 11)):
        given = text_batch(rows, length)
        found = session.run(*given, program=task.program_state())
        assert np.allclose(found, task(*given).detach(), atol=1e-5)
