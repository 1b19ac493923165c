"""Weights beside their graph: whole, found, stored once, and gone where an export failed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.backends.onnx.quantize import Precision
from graphprog.backends.onnx_model import external_data as onnx_files
from graphprog.backends.onnxruntime import Session
from graphprog.errors import BackendError, FileError
from tests.models.deployed_tasks import image_graph, image_task

pytestmark = pytest.mark.xdist_group("deployed-onnx")


@pytest.fixture(scope="module")
def graph() -> gp.Graph:
    return image_graph()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if one file held less than these models have."""
    monkeypatch.setattr(onnx_files, "MAX_BYTES", 2000)


@pytest.mark.parametrize("mode", ["folded", "overridable", "per_row"])
@pytest.mark.usefixtures("small")
def test_weights_beside_the_graph(graph: gp.Graph, mode: str, tmp_path: Path) -> None:
    task = image_task(graph, gp.LinearHead(3))
    assert gp.backends.onnx.export(task, tmp_path / "task.onnx", program=mode).passed
    (data,) = tmp_path.glob("*.data")
    assert data.name.startswith("task-")
    model = onnx.load(tmp_path / "task.onnx", load_external_data=False)
    outside = {one.name for one in model.graph.initializer if one.external_data}
    assert len(outside) > 3
    assert not any(name.startswith("program.") for name in outside)
    assert (tmp_path / "task.onnx").stat().st_size < 60_000
    images = torch.rand(3, 1, 8, 8)
    session = Session(tmp_path / "task.onnx", providers="cpu")
    assert np.allclose(session.run(images), task(images).detach(), atol=1e-5)


@pytest.mark.parametrize("source", ["int8", "float16", "bfloat16"])
@pytest.mark.usefixtures("small")
def test_weights_beside_the_graph_in_fewer_bits(
    graph: gp.Graph, source: Precision, tmp_path: Path
) -> None:
    task = image_task(graph, gp.LinearHead(3))
    gp.backends.onnx.export(task, tmp_path / "task.onnx", program="overridable")
    (data,) = tmp_path.glob("*.data")
    images = torch.rand(6, 1, 8, 8)
    small = tmp_path / "elsewhere"
    small.mkdir()
    path = tmp_path / "task.onnx"
    report = gp.backends.onnx.quantize(path, small / "small.onnx", source, inputs=(images,))
    assert report.bytes_before == path.stat().st_size + data.stat().st_size
    assert report.bytes_after == sum(file.stat().st_size for file in small.iterdir())
    assert report.max_relative < 0.05
    data.unlink()  # nothing of the other file is read
    found = Session(small / "small.onnx", providers="cpu").run(images)
    assert np.abs(found - task(images).detach().numpy()).max() < 0.05
    assert [file.suffix for file in sorted(small.iterdir())] == [".data", ".onnx"]


def test_weights_are_stored_as_they_are_multiplied_with(tmp_path: Path) -> None:
    """But for those that something else reads as they are: a runtime would copy the others."""
    torch.manual_seed(0)
    table = nn.Embedding(700, 600)
    model = nn.Sequential(table, nn.Linear(600, 600), nn.GELU(), nn.Linear(600, 700, bias=False))
    model[3].weight = table.weight
    ids = torch.randint(700, (2, 5))
    task = gp.compile(gp.capture(model.eval(), (ids,)), gp.Program([]))
    assert gp.backends.onnx.export(task, tmp_path / "task.onnx").passed
    graph = onnx.load(tmp_path / "task.onnx").graph
    turned = {node.input[0] for node in graph.node if node.op_type == "Transpose"}
    stored = {one.name: tuple(one.dims) for one in graph.initializer if len(one.dims) == 2}
    assert stored.pop("source.1.weight.transposed.10") == (600, 600)
    assert list(stored.values()) == [(700, 600)]  # the table, once
    assert turned == set(stored)


@pytest.mark.usefixtures("small")
def test_the_same_weights_are_written_under_the_same_name(graph: gp.Graph, tmp_path: Path) -> None:
    for seed in range(2):
        task = image_task(graph, gp.LinearHead(3), seed)
        gp.backends.onnx.export(task, tmp_path / "task.onnx", program="overridable")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.usefixtures("small")
def test_missing_and_damaged_weights_are_errors(graph: gp.Graph, tmp_path: Path) -> None:
    task = image_task(graph, gp.LinearHead(3))
    gp.backends.onnx.export(task, tmp_path / "task.onnx")
    (data,) = tmp_path.glob("*.data")
    whole = data.read_bytes()
    data.write_bytes(whole[:5000])
    with pytest.raises(FileError, match=r"task\.onnx: .*cannot load the model"):
        Session(tmp_path / "task.onnx", providers="cpu")
    data.unlink()
    with pytest.raises(FileError, match=rf"(?s)cannot load the model.*{data.name}.*beside it"):
        Session(tmp_path / "task.onnx", providers="cpu")


@pytest.mark.usefixtures("small")
def test_a_failed_export_leaves_nothing_beside(graph: gp.Graph, tmp_path: Path) -> None:
    task = image_task(graph, gp.LinearHead(3))
    with pytest.raises(BackendError, match="does not compute what the task does"):
        gp.backends.onnx.export(task, tmp_path / "task.onnx", tolerance=-1.0)
    assert not list(tmp_path.iterdir())
    gp.backends.onnx.export(task, tmp_path / "task.onnx")
    with pytest.raises(BackendError, match="does not compute what the task does"):
        gp.backends.onnx.export(task, tmp_path / "task.onnx", tolerance=-1.0)
    images = torch.rand(1, 1, 8, 8)
    found = Session(tmp_path / "task.onnx", providers="cpu").run(images)
    assert np.allclose(found, task(images).detach(), atol=1e-5)


@pytest.mark.slow
def test_more_than_two_gibibytes(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 24_000), nn.Linear(24_000, 24_000), nn.Linear(24_000, 4))
    graph = gp.capture(model.eval(), (torch.rand(2, 8),))
    task = gp.compile(graph, gp.Program([gp.Additive(at="input")], align=gp.LinearHead(3)))
    assert gp.backends.onnx.export(task, tmp_path / "big.onnx", program="overridable").passed
    (data,) = tmp_path.glob("*.data")
    assert data.stat().st_size > 2**31
    given = torch.rand(2, 8)
    found = Session(tmp_path / "big.onnx", providers="cpu").run(given)
    assert np.allclose(found, task(given).detach(), atol=1e-4)
