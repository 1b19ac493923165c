"""Model repositories are what the server's published schema asks for, and what the file takes."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
import torch

import graphprog as gp
from graphprog.backends import triton
from graphprog.errors import BackendError
from tests.models.deployed_tasks import image_graph, image_task, text_graph, text_task

pytestmark = pytest.mark.xdist_group("deployed-onnx")
text_format = pytest.importorskip("google.protobuf.text_format")


@cache
def schema() -> ModuleType:
    """The server's ``model_config.proto``, without the client around it and what that needs."""
    package = importlib.util.find_spec("tritonclient")
    if package is None or package.submodule_search_locations is None:
        pytest.skip("the schema is not installed: pip install tritonclient")
    (folder,) = package.submodule_search_locations
    path = Path(folder) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(folder: Path) -> Any:
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, schema().ModelConfig())


def taken(folder: Path, version: int = 1) -> dict[str, list[int]]:
    """Inputs and outputs of the model, -1 for sizes that vary."""
    graph = onnx.load(folder / str(version) / "model.onnx").graph
    return {
        value.name: [
            size.dim_value if size.HasField("dim_value") else -1
            for size in value.type.tensor_type.shape.dim
        ]
        for value in [*graph.input, *graph.output]
    }


def test_a_folded_task_is_batched_by_the_server(tmp_path: Path) -> None:
    labels = ("one", "two", 'a "third"', "four", "five")
    contract = gp.Contract(space="unit", mean=0.5, std=0.5, labels=labels)
    task = image_task(image_graph(), contract=contract)
    report = triton.export(task, tmp_path, name="images", max_batch_size=16)
    assert report.passed
    folder = tmp_path / "images"
    config = parsed(folder)
    assert (config.name, config.backend, config.max_batch_size) == ("images", "onnxruntime", 16)
    assert config.HasField("dynamic_batching")
    (given,), (found,) = config.input, config.output
    assert (given.name, list(given.dims)) == ("images", [1, 8, 8])
    assert given.data_type == found.data_type == schema().TYPE_FP32
    assert (found.name, list(found.dims)) == ("logits", [5])
    assert {name: sizes[1:] for name, sizes in taken(folder).items()} == {
        entry.name: list(entry.dims) for entry in (given, found)
    }
    assert (folder / found.label_filename).read_text(encoding="utf-8").splitlines() == [*labels]


def test_a_program_a_request(tmp_path: Path) -> None:
    triton.export(text_task(text_graph()), tmp_path, name="texts", program="inputs")
    config = parsed(tmp_path / "texts")
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    found = {entry.name: list(entry.dims) for entry in [*config.input, *config.output]}
    assert found == taken(tmp_path / "texts")
    assert found["ids"] == [-1, -1]
    assert found["program.additive.value"] == [16]
    types = {entry.name: entry.data_type for entry in config.input}
    assert types["ids"] == schema().TYPE_INT64
    assert not config.output[0].label_filename


def test_a_tensor_without_axes_has_one_for_the_server() -> None:
    class Scale:
        name, type, shape = "program.scale", "tensor(bool)", ()

    text = triton.configuration("scaled", [Scale], [], 8)
    (entry,) = text_format.Parse(text, schema().ModelConfig()).input
    assert list(entry.dims) == [1]
    assert entry.HasField("reshape")
    assert list(entry.reshape.shape) == []
    assert entry.data_type == schema().TYPE_BOOL


def test_every_type_is_one_of_the_schema() -> None:
    known = set(schema().DataType.keys())
    assert {f"TYPE_{name}" for name in triton._TYPES.values()} <= known


def test_a_new_version_lies_beside_the_old_one(tmp_path: Path) -> None:
    task = gp.compile(gp.capture(torch.nn.Linear(4, 3), (torch.rand(2, 4),)), gp.Program())
    for version in (1, 2):
        triton.export(task, tmp_path, name="linear", version=version)
    files = {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()
    }
    assert files == {f"linear/{name}" for name in ("config.pbtxt", "1/model.onnx", "2/model.onnx")}


def test_what_the_server_does_not_take_is_refused(tmp_path: Path) -> None:
    task = gp.compile(gp.capture(torch.nn.Linear(4, 3), (torch.rand(2, 4),)), gp.Program())
    with pytest.raises(BackendError, match="the server replaces no initializer"):
        triton.export(task, tmp_path, name="linear", program="overridable")
    for wrong in ({"name": "../up"}, {"name": "a", "version": 0}, {"name": "", "version": 1}):
        with pytest.raises(BackendError, match="are what the server takes"):
            triton.export(task, tmp_path, **wrong)
    assert list(tmp_path.iterdir()) == []
