"""Adapter files: ONNX Runtime applies them itself, through its own API alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import graphprog as gp
from graphprog.backends.onnxruntime import Session, export_adapter
from graphprog.errors import BackendError, FileError
from tests.models.deployed_tasks import image_graph, image_task

pytestmark = pytest.mark.xdist_group("deployed-per-row")


@pytest.fixture(scope="module")
def tasks() -> list[gp.ReprogrammedModel]:
    graph = image_graph()
    return [image_task(graph, gp.BayesianMap(3), seed) for seed in range(2)]


def applied(model: Path, adapter: Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """Run a model with an adapter, without graphprog."""
    loaded = onnxruntime.LoraAdapter()
    loaded.Load(str(adapter))
    options = onnxruntime.RunOptions()
    options.add_active_adapter(loaded)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, feeds, options)[0]
    return found


@pytest.mark.parametrize("mode", ["overridable", "per_row"])
def test_an_adapter_is_a_program(
    tasks: list[gp.ReprogrammedModel], mode: str, tmp_path: Path
) -> None:
    path, adapter = tmp_path / "task.onnx", tmp_path / "other.onnx_adapter"
    gp.backends.onnx.export(tasks[0], path, program=mode)
    gp.save(tasks[1], tmp_path / "other.safetensors")
    session = Session(path, providers="cpu")
    session.add("other", tmp_path / "other.safetensors")
    export_adapter(session, "other", adapter, version=7)
    images = torch.rand(4, 1, 8, 8)
    feeds = {"images": images.numpy()}
    if mode == "per_row":
        feeds["program.row"] = np.zeros(4, dtype=np.int64)
    with torch.no_grad():
        expected, own = (task(images).numpy() for task in (tasks[1], tasks[0]))
    assert abs(expected - own).max() > 1e-3
    assert np.allclose(applied(path, adapter, feeds), expected, atol=1e-5)
    form = onnxruntime.AdapterFormat.read_adapter(str(adapter))
    assert form.get_adapter_version() == 7
    assert form.get_model_version() > 0
    assert set(form.get_parameters()) <= set(session.overridable) | {"program.classes"}


def test_bad_adapters(tasks: list[gp.ReprogrammedModel], tmp_path: Path) -> None:
    modes = ("folded", "inputs", "overridable")
    for mode in modes:
        gp.backends.onnx.export(tasks[0], tmp_path / f"{mode}.onnx", program=mode)
    state = tasks[1].program_state()
    folded, without, session = (
        Session(tmp_path / f"{mode}.onnx", providers="cpu") for mode in modes
    )
    with pytest.raises(BackendError, match="folded in"):
        export_adapter(folded, state, tmp_path / "x.onnx_adapter")
    with pytest.raises(BackendError, match="it holds no program"):
        export_adapter(without, state, tmp_path / "x.onnx_adapter")
    with pytest.raises(FileError, match=r"ends in \.onnx_adapter"):
        export_adapter(session, state, tmp_path / "x.onnx")
    del state["program.align.weights"]
    with pytest.raises(BackendError, match=r"the program has no program\.align\.weights"):
        export_adapter(session, state, tmp_path / "x.onnx_adapter")
    with pytest.raises(BackendError, match="no program 'digits'"):
        export_adapter(session, "digits", tmp_path / "x.onnx_adapter")
    assert not list(tmp_path.glob("*adapter*"))
