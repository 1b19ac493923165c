"""A training step as an ONNX graph: a small CNN, its files, and what goes wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

import graphprog as gp
from graphprog.errors import BackendError, DataError, FileError, TrainingError
from tests.support.steps import eager_losses, require_equal_curves, worst
from tests.support.training import digits, framed, graph, headed, same_state

ort = gp.backends.onnxruntime


def batches(count: int, rows: int = 20) -> list[tuple[torch.Tensor, torch.Tensor]]:
    images, labels = digits()["train"]
    starts = [number * rows % len(labels) for number in range(count)]
    return [(images[start : start + rows], labels[start : start + rows]) for start in starts]


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A step of a task with a frame and a head."""
    path = tmp_path_factory.mktemp("step") / "step.onnx"
    report = ort.export_training(headed(), path, optimizer=gp.Adam(1e-2))
    assert report.passed
    assert report.batch_sizes == (2, 5)
    return path


def test_a_hundred_steps_have_the_losses_of_pytorch(step: Path, tmp_path: Path) -> None:
    task, trainer = headed(), ort.Trainer(step, providers="cpu")
    given = [*batches(98), *batches(1, rows=7), *batches(1, rows=1)]
    found = [trainer.step(*batch) for batch in given]
    assert worst(found, eager_losses(task, given, functional.cross_entropy, gp.Adam(1e-2))) < 1e-4
    assert found[90] < 0.7 * found[0]
    assert trainer.steps == 100
    trainer.save(tmp_path / "digits.safetensors")
    loaded = gp.load(tmp_path / "digits.safetensors", graph())
    images, _ = digits()["test"]
    torch.testing.assert_close(loaded(images), task(images), rtol=1e-3, atol=1e-3)
    assert loaded.summary["steps"] == 100


def test_gp_fit_has_the_same_losses(step: Path) -> None:
    trainer, task = ort.Trainer(step, providers="cpu"), headed()
    images, labels = digits()["train"]
    order = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(images, labels), batch_size=20
    )
    history = gp.fit(task, order, epochs=3, optimizer=gp.Adam(1e-2), progress=False)
    for record in history.records:
        losses = [trainer.step(*batch) for batch in batches(10)]
        assert np.mean(losses) == pytest.approx(record.train_loss, rel=1e-4)


def test_files_go_both_ways(step: Path, tmp_path: Path) -> None:
    task = headed(seed=5)
    eager_losses(task, batches(3), functional.cross_entropy, gp.SGD(0.1))
    gp.save(task, tmp_path / "task.safetensors")
    trainer = ort.Trainer(step, providers="cpu")
    trainer.step(*batches(1)[0])
    trainer.load(tmp_path / "task.safetensors")
    assert trainer.steps == 0
    trainer.save(tmp_path / "back.safetensors")
    assert same_state(gp.load(tmp_path / "back.safetensors", graph()), task)


def test_the_graph_is_one_of_inference_over_named_tensors(step: Path) -> None:
    model = onnx.load(step)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    assert inputs[:3] == ["images", "labels", "learning_rate"]
    assert "program.align.weight" in inputs
    assert "new.optimizer.exp_avg_sq.program.align.weight" in outputs
    assert outputs[0] == "loss"
    assert "logits" in outputs
    sizes = model.graph.input[1].type.tensor_type.shape.dim
    assert [size.dim_param for size in sizes] == ["batch"]


def test_epsilon_stays_where_the_gradient_is_zero(step: Path) -> None:
    trainer = ort.Trainer(step, providers="cpu")
    before = trainer.program_state()["program.additive.value"]
    trainer.step(*batches(1)[0])
    after = trainer.program_state()["program.additive.value"]
    hidden = headed().program.additive.mask == 0
    assert torch.equal(before[hidden], after[hidden])
    assert not torch.equal(before, after)
    assert after.isfinite().all()


def test_the_learning_rate_is_an_input(step: Path) -> None:
    trainer, task = ort.Trainer(step, providers="cpu"), headed()
    given = batches(10)
    optimizer = gp.Adam(1e-2)
    made: list[torch.optim.Optimizer] = []

    def scheduled(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        made.append(optimizer(parameters))
        return made[0]

    found, wanted = [], []
    for number, batch in enumerate(given):
        trainer.lr = 1e-2 / (1 + number)
        found.append(trainer.step(*batch))
    parameters = [value for value in task.program.parameters() if value.requires_grad]
    scheduled(parameters)
    for number, (images, labels) in enumerate(given):
        made[0].param_groups[0]["lr"] = 1e-2 / (1 + number)
        value = functional.cross_entropy(task.train()(images), labels)
        made[0].zero_grad()
        value.backward()
        made[0].step()
        wanted.append(value.item())
    assert worst(found, wanted) < 1e-4


def test_outputs_are_those_of_the_batch_before_the_step(step: Path) -> None:
    trainer, task = ort.Trainer(step, providers="cpu"), headed()
    assert trainer.outputs == {}
    images, labels = batches(1)[0]
    trainer.step(images.numpy(), labels.numpy())
    torch.testing.assert_close(
        torch.from_numpy(trainer.outputs["logits"]), task(images).detach(), rtol=1e-4, atol=1e-5
    )


def test_bad_numbers_stop_training_and_leave_the_last_good_state(step: Path) -> None:
    trainer = ort.Trainer(step, providers="cpu")
    for batch in batches(3):
        trainer.step(*batch)
    trainer.load_state({"program.align.bias": torch.full((10,), torch.nan)})
    broken = trainer.program_state()
    with pytest.raises(TrainingError, match=r"loss of step 4 is not finite; .* the 3 steps"):
        trainer.step(*batches(1)[0])
    assert trainer.steps == 3
    kept = trainer.program_state()
    assert all(torch.equal(kept[name], broken[name]) for name in kept if "bias" not in name)
    trainer.load_state({"program.align.bias": torch.zeros(10)})
    assert trainer.step(*batches(1)[0]) > 0


def test_a_counted_mapping_is_refreshed_from_the_logits_of_the_steps(tmp_path: Path) -> None:
    optimizer = gp.SGD(0.5, clip=0.5, weight_decay=1e-3)
    task = framed(gp.BayesianMap(10))
    trainer = require_equal_curves(
        task, batches(10), functional.cross_entropy, optimizer, tmp_path / "step.onnx"
    )
    module, start = task.alignment, framed(gp.BayesianMap(10))
    counts = torch.zeros(12, 10, dtype=torch.float64)
    parameters = [value for value in start.program.parameters() if value.requires_grad]
    made = optimizer(parameters)
    for images, labels in batches(10):
        logits, read = start.train().both(images)
        counts += module.count(read.detach(), labels)
        made.zero_grad()
        functional.cross_entropy(logits, labels).backward()
        made.step()
    report = trainer.refresh()
    assert str(report) == str(module.refresh(counts))
    given = batches(40)
    found = [trainer.step(*batch) for batch in given]
    again = eager_losses(task, given[:1], functional.cross_entropy, gp.SGD(0.0))
    assert worst(found[:1], again) < 1e-4
    trainer.save(tmp_path / "mapped.safetensors")
    loaded = gp.load(tmp_path / "mapped.safetensors", graph())
    assert loaded.alignment.refreshed
    with pytest.raises(TrainingError, match="no step was taken"):
        trainer.refresh() and trainer.refresh()


def test_bad_batches_are_told_by_name(step: Path) -> None:
    trainer = ort.Trainer(step, providers="cpu")
    images, labels = batches(1)[0]
    with pytest.raises(DataError, match="labels must be int64"):
        trainer.step(images, labels.float())
    with pytest.raises(DataError, match=r"labels must be int64\[20\]"):
        trainer.step(images, labels[:3])
    with pytest.raises(DataError, match="takes images, labels"):
        trainer.step(images)
    with pytest.raises(DataError, match="not finite"):
        trainer.step(images / 0, labels)
    with pytest.raises(BackendError, match="failed on"):
        trainer.step(images, labels + 100)
    with pytest.raises(TrainingError, match="counts no mapping"):
        trainer.refresh()
    assert trainer.steps == 0


def test_programs_of_another_kind_are_refused(step: Path, tmp_path: Path) -> None:
    trainer = ort.Trainer(step, providers="cpu")
    gp.save(framed(gp.FixedMap(10)), tmp_path / "other.safetensors")
    with pytest.raises(FileError, match="not of the kind"):
        trainer.load(tmp_path / "other.safetensors")
    with pytest.raises(BackendError, match=r"program\.align\.bias"):
        trainer.load_state({"program.align.bias": torch.zeros(3)})


def test_files_that_hold_no_step(step: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        ort.Trainer(tmp_path / "absent.onnx")
    gp.backends.onnx.export(headed(), tmp_path / "task.onnx")
    with pytest.raises(FileError, match="no training step"):
        ort.Trainer(tmp_path / "task.onnx")
    (tmp_path / "cut.onnx").write_bytes(step.read_bytes()[:-2000])
    with pytest.raises(FileError, match=r"cut\.onnx"):
        ort.Trainer(tmp_path / "cut.onnx")
    model = onnx.load(step)
    entry = next(item for item in model.metadata_props if item.key == "graphprog.step")
    entry.value = entry.value.replace('"version": 1', '"version": 2')
    onnx.save(model, tmp_path / "later.onnx")
    with pytest.raises(FileError, match="version 2"):
        ort.Trainer(tmp_path / "later.onnx")


def test_what_cannot_be_trained_is_told_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "step.onnx"
    with pytest.raises(TrainingError, match="nothing to train"):
        ort.export_training(gp.compile(graph(), gp.Program(align=gp.BayesianMap(10))), path)
    with pytest.raises(TrainingError, match="loss must be one of"):
        ort.export_training(headed(), path, loss="crossentropy")
    with pytest.raises(TrainingError, match="a description"):
        ort.export_training(headed(), path, optimizer=torch.optim.Adam)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match=r"no gradient reaches .*program\.align\.weight"):
        ort.export_training(headed(), path, loss=lambda logits, labels: labels.double().mean())
    with pytest.raises(BackendError, match="the loss cannot be traced"):
        ort.export_training(
            headed(), path, loss=lambda logits, labels: logits.mean() if logits.max() > 0 else 0
        )
    assert not path.exists()


def test_a_step_with_other_gradients_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of rectifiers may jump by rounding; by a fifth they may not."""
    monkeypatch.setattr(
        "graphprog.backends.onnx_training.step._clipped",
        lambda gradients, *_: {name: 1.2 * value for name, value in gradients.items()},
    )
    with pytest.raises(BackendError, match="differs from PyTorch"):
        ort.export_training(headed(), tmp_path / "step.onnx")
    assert not list(tmp_path.iterdir())


def hard(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """A loss with an operation that ONNX has not, as it has not that of its gradient."""
    return torch.special.i0(logits).mean() + logits.mean()


def test_all_operations_without_a_translation_are_named(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"bessel_i0.*bessel_i1"):
        ort.export_training(headed(), tmp_path / "step.onnx", loss=hard)
    assert not (tmp_path / "step.onnx").exists()


class Divided(nn.Module):
    """The exporter leaves out what its means are divided by."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(images, 4, divisor_override=5).flatten(1)


def test_an_operation_that_the_exporter_gets_wrong_is_refused(tmp_path: Path) -> None:
    graph = gp.capture(Divided(), (torch.rand(2, 1, 8, 8),))
    task = gp.compile(graph, gp.Program([gp.Additive(at="input")], align=gp.LinearHead(3)))
    with pytest.raises(BackendError, match="differs from PyTorch"):
        ort.export_training(task, tmp_path / "step.onnx")
    with pytest.raises(BackendError, match="differ"):
        gp.backends.onnx.export(task, tmp_path / "task.onnx")
    assert not list(tmp_path.iterdir())
