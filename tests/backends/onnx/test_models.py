"""ONNX for models of other shapes: text of any length, many outputs, what has no translation."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.backends.onnx import Mode
from graphprog.errors import BackendError
from tests.models.deployed_tasks import text_batch, text_graph, text_task

pytestmark = pytest.mark.xdist_group("deployed-onnx-models")

MODES: tuple[Mode, ...] = ("folded", "overridable")


@pytest.mark.parametrize("mode", MODES)
def test_two_inputs_of_any_length(mode: Mode, tmp_path: Path) -> None:
    task = text_task(text_graph())
    path = tmp_path / "text.onnx"
    report = gp.backends.onnx.export(task, path, program=mode, inputs=text_batch(3, 9))
    assert report.batch_sizes == (1, 3)
    inputs = [value for value in ir.load(path).graph.inputs if not value.is_initializer()]
    assert [str(value.shape) for value in inputs] == ["[batch,S]", "[batch,S]"]
    session = gp.backends.onnxruntime.Session(path)
    for rows, length in ((1, 1), (2, 23), (5, 64)):
        ids, present = text_batch(rows, length)
        with torch.no_grad():
            expected = task(ids, present)
        found = torch.from_numpy(session.run(present=present, ids=ids))
        assert torch.allclose(found, expected, atol=1e-5), (rows, length)


def test_an_operation_without_translation_is_named(tmp_path: Path) -> None:
    class Special(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x)

    task = gp.compile(gp.capture(Special(), (torch.rand(2, 4),)), gp.Program())
    with pytest.raises(BackendError, match=r"no translation to ONNX.*bessel_j0"):
        gp.backends.onnx.export(task, tmp_path / "task.onnx")
    assert list(tmp_path.iterdir()) == []


class PooledZeros(nn.Module):
    """Zeros around a picture are the largest of each window at the border."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = nn.functional.pad(x - 9, (1, 1, 1, 1))
        return nn.functional.max_pool2d(padded, 3, 2)


@pytest.mark.parametrize(
    ("dtype", "step"), [(torch.float16, 2**-24), (torch.float32, 1e-37), (torch.float64, 1e-37)]
)
def test_zeros_in_front_of_a_max_pooling_count(
    dtype: torch.dtype, step: float, tmp_path: Path
) -> None:
    example = torch.rand(2, 3, 8, 8).to(dtype)
    task = gp.compile(gp.capture(PooledZeros(), (example,)), gp.Program())
    path = tmp_path / "task.onnx"
    assert gp.backends.onnx.export(task, path).passed
    x = torch.rand(3, 3, 8, 8).to(dtype)
    found = torch.from_numpy(gp.backends.onnxruntime.Session(path).run(x))
    assert (task(x) == 0).any()
    assert (found.double() - task(x).double()).abs().max() <= step


class ManyOutputs(nn.Module):
    """A dictionary with one tensor twice, another dtype, an input, and constants."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, unused: torch.Tensor) -> dict[str, object]:
        y = self.layer(x)
        return {"y": y, "again": y, "x": x, "best": y.argmax(1), "none": None, "three": 3}


def test_outputs_of_any_kind(tmp_path: Path) -> None:
    example = (torch.rand(2, 4), torch.rand(2, 1))
    task = gp.compile(gp.capture(ManyOutputs(), example), gp.Program())
    path = tmp_path / "task.onnx"
    assert gp.backends.onnx.export(task, path).passed
    session = gp.backends.onnxruntime.Session(path)
    assert session.document.outputs == ("y", "again", "x_out", "best")
    assert [value.name for value in ir.load(path).graph.outputs] == ["y", "again", "x_out", "best"]
    inputs = task.input_example(3)
    y, again, x, best = session.evaluate(inputs)
    assert (y == again).all()
    assert (x == inputs[0].numpy()).all()
    assert best.dtype == "int64"


def test_what_the_runtime_cannot_do_is_refused_at_export(tmp_path: Path) -> None:
    model = nn.Linear(4, 3).bfloat16()
    task = gp.compile(gp.capture(model, (torch.rand(2, 4).bfloat16(),)), gp.Program())
    with pytest.raises(BackendError, match=r"(?s)cannot be run: .*float32"):
        gp.backends.onnx.export(task, tmp_path / "task.onnx")
    assert list(tmp_path.iterdir()) == []


class OddConstant(nn.Module):
    """Computes in float32, but for one table."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.table = torch.ones(1, 3, dtype=torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.linear(x), self.table.expand(x.shape[0], -1)], 1)


def test_a_bfloat16_constant_is_named_with_its_line(tmp_path: Path) -> None:
    task = gp.compile(gp.capture(OddConstant().eval(), (torch.rand(2, 4),)), gp.Program())
    with pytest.raises(BackendError) as failure:
        gp.backends.onnx.export(task, tmp_path / "task.onnx")
    text = str(failure.value)
    assert "in bfloat16, unlike the inputs: tensor table (1, 3)" in text
    assert "self.table.expand(x.shape[0], -1)" in text
    assert "make these float32" in text
    assert "capture the source model in float32" not in text
