"""Providers: exactly those asked for, or a loud error."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import graphprog as gp
from graphprog.backends.onnxruntime import Session
from graphprog.backends.onnxruntime import providers as providers_module
from graphprog.backends.onnxruntime.providers import gpu_available
from graphprog.errors import BackendError

pytestmark = pytest.mark.xdist_group("deployed-onnxruntime")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    contract = gp.Contract(labels=("a", "b", "c", "d", "e"))
    program = gp.Program(align=gp.FixedMap(5), contract=contract)
    task = gp.compile(gp.capture(torch.nn.Linear(4, 600), (torch.rand(2, 4),)), program)
    path = tmp_path_factory.mktemp("exported") / "folded.onnx"
    gp.backends.onnx.export(task, path)
    return path


def test_the_processor_by_any_name(path: Path) -> None:
    names = ("cpu", ["CPUExecutionProvider"], [("cpu", {"use_arena": "0"})])
    for providers in names:
        session = Session(path, providers=providers)
        assert session.providers == ("CPUExecutionProvider",)


def test_unknown_providers_are_refused(path: Path) -> None:
    with pytest.raises(BackendError, match="'abacus' is unknown to ONNX Runtime"):
        Session(path, providers="abacus")
    with pytest.raises(BackendError, match="'qnn' is not in this build"):
        Session(path, providers=["qnn", "cpu"])
    with pytest.raises(BackendError, match="providers is empty"):
        Session(path, providers=[])


@pytest.mark.skipif(gpu_available(), reason="there is a GPU, so it may start")
@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_a_provider_that_does_not_start_is_loud(path: Path, name: str) -> None:
    available = {entry.lower() for entry in onnxruntime.get_available_providers()}
    if f"{name}executionprovider" not in available:
        pytest.skip(f"this build of ONNX Runtime lacks {name}")
    with pytest.raises(BackendError, match=rf"cannot use {name} here"):
        Session(path, providers=name)
    with pytest.raises(BackendError, match=rf"cannot use {name} and cpu here"):
        Session(path, providers=[name, "cpu"])


@pytest.mark.skipif(gpu_available(), reason="there is a GPU, so it may start")
def test_falling_back_from_a_gpu_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Session(path)  # where there is no GPU, the processor is no surprise
    monkeypatch.setattr(providers_module, "gpu_available", lambda: True)
    with pytest.warns(RuntimeWarning, match="there is a GPU, but ONNX Runtime runs on the proc"):
        assert Session(path).providers == ("CPUExecutionProvider",)


@pytest.mark.gpu
def test_the_gpu_is_used_and_agrees(path: Path) -> None:
    for providers in ("auto", "cuda"):
        session = Session(path, providers=providers)
        assert session.providers[0] == "CUDAExecutionProvider"
        rows = torch.rand(3, 4)
        expected = Session(path, providers="cpu").run(rows)
        assert np.allclose(session.run(rows.cuda()), expected, atol=1e-3)
