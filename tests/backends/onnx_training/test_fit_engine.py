"""The loop of ``gp.fit`` with steps of ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import graphprog as gp
from graphprog.errors import TrainingError
from graphprog.train.loop import run as loop
from graphprog.train.optimizers import Optimizer
from tests.support.training import digits, framed, headed, same_state

OPTIONS: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 32,
    "schedule": "cosine",
    "progress": False,
    "optimizer": gp.Adam(1e-2, clip=1.0),
}


def test_the_loop_has_the_numbers_of_pytorch_and_resumes_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mapping counted on the steps' own outputs, validation, best epoch, a kill in between."""
    data = digits()
    tasks = [framed(gp.BayesianMap(10, collect="epoch")) for _ in range(3)]
    both = data["train"], data["validation"]
    wanted = gp.fit(tasks[0], *both, **OPTIONS)
    found = gp.fit(tasks[1], *both, engine="onnxruntime", **OPTIONS)
    assert found.best_epoch == wanted.best_epoch
    for one, other in zip(found.records, wanted.records, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert one.validation_loss == pytest.approx(other.validation_loss, rel=1e-4)
        assert one.train_accuracy == pytest.approx(other.train_accuracy, abs=0.01)
        assert (one.mapping, one.lr) == (other.mapping, other.lr)
    save = loop.Run.save

    def killed(run: loop.Run) -> None:
        save(run)
        raise KeyboardInterrupt

    again = {**OPTIONS, "engine": "onnxruntime", "checkpoint": tmp_path}
    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            gp.fit(tasks[2], *both, **again)
    assert gp.fit(tasks[2], *both, **again).records[1].train_loss == found.records[1].train_loss
    assert same_state(tasks[1], tasks[2])
    with pytest.raises(TrainingError, match="engine was 'onnxruntime'"):
        gp.fit(tasks[2], *both, **OPTIONS, checkpoint=tmp_path)


def diverging(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Not finite where all labels are low, as in the second batch."""
    return functional.cross_entropy(logits, labels) / (labels.max() > 2).to(logits.dtype)


def test_numbers_that_diverge_leave_the_program_that_was(tmp_path: Path) -> None:
    images, _ = digits()["train"]
    labels = torch.tensor([5] * 30 + [1] * 30)
    task, before = headed(), headed()
    order = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(images[:60], labels), batch_size=30
    )
    with pytest.raises(TrainingError, match="the loss of step 2 is not finite"):
        gp.fit(task, order, loss=diverging, engine="onnxruntime", progress=False)
    assert same_state(task, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 2}, "accumulate=2 is not for them"),
        ({"precision": "bf16"}, "precision='bf16' is not for them"),
        ({"optimizer": torch.optim.Adam}, "an optimizer that is a function"),
        ({"engine": "tensorflow"}, "engine must be one of .*, not 'tensorflow'"),
    ],
)
def test_what_the_engine_does_not_do_is_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        gp.fit(headed(), digits()["train"], **{"engine": "onnxruntime", **options})


@pytest.mark.parametrize(
    "optimizer",
    [
        gp.SGD(0.1, momentum=0.0),
        gp.SGD(0.1, weight_decay=0.01),
        gp.Adam(0.1, eps=1e-3, betas=(0.8, 0.99)),
        gp.Adam(0.1, weight_decay=0.1),
        gp.AdamW(0.1, weight_decay=0.1),
    ],
    ids=str,
)
def test_updates_are_those_of_torch_optim(optimizer: Optimizer) -> None:
    value = nn.Parameter(torch.linspace(-1, 1, 6, dtype=torch.float64))
    made, own = optimizer([value]), value.detach().clone()
    moments = tuple(torch.zeros_like(own) for _ in optimizer.moments)
    for step in range(1, 30):
        value.grad = torch.sin(step * torch.arange(6, dtype=torch.float64)) * (step % 7)
        own, moments = optimizer.update(
            own, value.grad, moments, torch.tensor(step), torch.tensor(0.1, dtype=torch.float64)
        )
        made.step()
        torch.testing.assert_close(own, value.detach(), rtol=1e-11, atol=1e-11)


def test_clipping_is_that_of_the_whole_gradient() -> None:
    values = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))]
    made = gp.SGD(1.0, momentum=0.0, clip=1.0)(values)
    for value in values:
        value.grad = torch.full_like(value, 3.0)
    made.step()
    norm = torch.cat([value.detach() for value in values]).norm()
    assert float(norm) == pytest.approx(1.0, rel=1e-5)


def test_descriptions_are_checked() -> None:
    with pytest.raises(TrainingError, match="Adam: lr must be a number"):
        gp.Adam(-1.0)
    with pytest.raises(TrainingError, match="SGD: clip must be a number"):
        gp.SGD(0.1, clip=float("nan"))
    assert gp.Adam(0.1).settings() == {
        "kind": "Adam",
        "lr": 0.1,
        "weight_decay": 0.0,
        "clip": None,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
    }
