"""Files that return values at interfaces, of models with and without a program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import graphprog as gp
from graphprog.errors import BackendError, InterfaceError
from tests.models.zoo import CASES, captured

NAMES = ["logits", "hidden[0]", "features"]


@pytest.fixture(scope="module")
def task() -> gp.ReprogrammedModel:
    torch.manual_seed(0)
    frame = gp.Additive(value=gp.Learnable("normal"))
    program = gp.Program([frame], align=gp.LinearHead(3, at="features"))
    return gp.compile(captured("residual")[1], program)


@pytest.mark.parametrize("program", ["folded", "overridable", "inputs"])
def test_a_file_returns_what_is_read(
    task: gp.ReprogrammedModel, program: str, tmp_path: Path
) -> None:
    path, images = tmp_path / "read.onnx", CASES["residual"].call(3)[0][0]
    report = gp.backends.onnx.export(task, path, program=program, outputs=NAMES)  # type: ignore[arg-type]
    assert report.passed
    session = gp.backends.onnxruntime.Session(path, "cpu")
    own = {"program": task.program_state()} if program == "inputs" else {}
    found = session.run(images, outputs=["hidden[0]", "logits"], **own)
    assert list(found) == ["hidden[0]", "logits"]
    expected = gp.record(task, images, at="hidden[0]")["hidden[0]"]
    np.testing.assert_allclose(found["hidden[0]"], expected.numpy(), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        logits = task(images).numpy()
    np.testing.assert_allclose(found["logits"], logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(session.run(images, **own), logits, rtol=1e-4, atol=1e-5)


def test_a_graph_without_a_program_is_exported(tmp_path: Path) -> None:
    graph, call = captured("bert")[1], CASES["bert"].call(3)[1]
    path = tmp_path / "graph.onnx"
    names = ["hidden[0]", "hidden[2]", "attention[1].weights", "attention[0].heads[1]"]
    assert gp.backends.onnx.export(graph, path, outputs=names).passed
    session = gp.backends.onnxruntime.Session(path, "cpu")
    values = {name: call[name].numpy() for name in ("input_ids", "attention_mask")}
    found = session.run(outputs=names, **values)
    for name, value in gp.record(graph, call, at=names).items():
        np.testing.assert_allclose(found[name], value.numpy(), rtol=1e-4, atol=1e-5)


def test_what_is_not_an_output(task: gp.ReprogrammedModel, tmp_path: Path) -> None:
    export = gp.backends.onnx.export
    with pytest.raises(InterfaceError, match="no interface 'nowhere'"):
        export(task, tmp_path / "no.onnx", outputs=["logits", "nowhere"])
    with pytest.raises(InterfaceError, match="each once"):
        export(task, tmp_path / "no.onnx", outputs=["logits", "logits"])
    assert not (tmp_path / "no.onnx").exists()
    export(task, tmp_path / "yes.onnx")
    session = gp.backends.onnxruntime.Session(tmp_path / "yes.onnx", "cpu")
    images = CASES["residual"].call(2)[0][0]
    with pytest.raises(BackendError, match=r"has no output hidden\[0\]"):
        session.run(images, outputs=["hidden[0]"])
