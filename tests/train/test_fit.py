"""Training: what it learns, what it leaves alone, and that it repeats itself."""

from __future__ import annotations

import random

import numpy
import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.errors import TrainingError
from graphprog.train import evaluate, fit
from graphprog.train.engines import ENGINES
from graphprog.train.loop.epoch import Trainer
from graphprog.train.loop.meter import Scores
from tests.support.training import digits, framed, graph, headed, make_source, same_state

TRAIN, VALIDATION = digits()["train"], digits()["validation"]


def test_a_head_learns_digits_and_the_task_holds_the_best_program() -> None:
    task = headed()
    before = evaluate(task, VALIDATION)
    history = fit(task, TRAIN, VALIDATION, epochs=8, lr=0.05)
    after = evaluate(task, VALIDATION)
    assert after.accuracy > before.accuracy + 0.4
    best = max(history.records, key=lambda r: (r.validation_accuracy, -(r.validation_loss or 0)))
    assert history.best == best
    assert (after.accuracy, after.loss) == (best.validation_accuracy, best.validation_loss)
    assert history.records[-1].train_loss < 0.5 * history.records[0].train_loss
    assert task.summary["best_epoch"] == history.best_epoch
    assert task.summary["settings"]["lr"] == 0.05


def test_the_users_model_and_the_source_stay_as_they_were() -> None:
    model = make_source().train()
    captured = gp.capture(model, (torch.rand(2, 1, 10, 10),))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    pointers = [parameter.data_ptr() for parameter in captured.weights.source.parameters()]
    task = gp.compile(captured, gp.Program(align=gp.LinearHead(10)))
    images = torch.rand(40, 1, 10, 10)
    fit(task, (images, torch.arange(40) % 10), epochs=2)
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not task.training
    assert not task.source.training
    assert pointers == [p.data_ptr() for p in captured.weights.source.parameters()]
    assert all(parameter.grad is None for parameter in task.parameters())


def test_one_seed_gives_one_result_and_leaves_global_streams_alone() -> None:
    tasks = [framed(gp.IterativeMap(10)) for _ in range(3)]
    torch.manual_seed(5)
    first = fit(tasks[0], TRAIN, VALIDATION, epochs=3, seed=1)
    random.seed(8)
    numpy.random.seed(8)
    torch.manual_seed(8)
    states = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state()
    second = fit(tasks[1], TRAIN, VALIDATION, epochs=3, seed=1)
    assert random.getstate() == states[0]
    assert numpy.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    other = fit(tasks[2], TRAIN, VALIDATION, epochs=3, seed=2)
    assert first == second
    assert same_state(tasks[0], tasks[1])
    assert first.records != other.records


class CountingTrainer(Trainer):
    """Takes the steps of PyTorch and counts its epochs."""

    epochs = 0

    def train(self, epoch: int) -> tuple[Scores, torch.Tensor | None]:
        CountingTrainer.epochs += 1
        return super().train(epoch)


def test_an_engine_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "counting", f"{__name__}:CountingTrainer")
    tasks = [headed(), headed()]
    plain = fit(tasks[0], TRAIN, epochs=2)
    counted = fit(tasks[1], TRAIN, epochs=2, engine="counting")
    assert CountingTrainer.epochs == 2
    assert counted.records == plain.records
    assert same_state(*tasks)
    with pytest.raises(TrainingError, match="engine must be one of pytorch, onnxruntime, counting"):
        fit(tasks[0], TRAIN, engine="unknown")


def test_accumulated_batches_are_one_large_batch() -> None:
    large, small = headed(), headed()
    settings = {"epochs": 2, "optimizer": "sgd", "lr": 0.1}
    one = fit(large, TRAIN, batch_size=48, **settings)
    two = fit(small, TRAIN, batch_size=16, accumulate=3, **settings)  # the last step has 8 rows
    assert one.records[-1].train_loss == pytest.approx(two.records[-1].train_loss, rel=1e-5)
    for name, value in large.program_state().items():
        torch.testing.assert_close(value, small.program_state()[name], rtol=1e-4, atol=1e-6)


def test_bf16_learns_and_differs_from_full_precision() -> None:
    full, mixed = headed(), headed()
    fit(full, TRAIN, epochs=4, lr=0.05)
    history = fit(mixed, TRAIN, VALIDATION, epochs=4, lr=0.05, precision="bf16")
    assert (history.best.validation_accuracy or 0) > 0.4
    assert not same_state(full, mixed)
    assert all(value.dtype == torch.float32 for value in mixed.program_state().values())
    fit(full, TRAIN, epochs=1)  # full precision again, in the same process


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which has fp16")
def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(TrainingError, match="'fp16' is not available on cpu") as error:
        fit(headed(), TRAIN, precision="fp16")
    assert "bf16" in str(error.value)


def test_functions_for_optimizer_schedule_and_loss_are_used() -> None:
    task = headed()
    seen: list[float] = []

    def halves(progress: float) -> float:
        seen.append(progress)
        return 0.5 if progress >= 0.5 else 1.0

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        head = [p for p in parameters if p.ndim < 3]
        rest = [p for p in parameters if p.ndim == 3]
        return torch.optim.SGD([{"params": head, "lr": 0.5}, {"params": rest, "lr": 2.0}])

    def squared(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (logits - nn.functional.one_hot(labels, 10)).square().mean()

    history = fit(task, TRAIN, epochs=2, optimizer=make, schedule=halves, loss=squared)
    assert [record.lr for record in history.records] == [0.5, 0.25]
    assert min(seen) == 0.0
    assert max(seen) < 1.0
    assert history.records[0].train_loss < 1.0
    assert history.settings["loss"].endswith("squared")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1.0, 1.0, 1.0, 1.0]),
        ("linear", [1.0, 0.75, 0.5, 0.25]),
        ("cosine", [1.0, 0.853553, 0.5, 0.146447]),
        ("multistep", [1.0, 1.0, 0.1, 0.01]),
    ],
)
def test_schedules_follow_the_epochs(schedule: str, expected: list[float]) -> None:
    history = fit(headed(), TRAIN, epochs=4, lr=1e-3, schedule=schedule)
    assert [1e3 * record.lr for record in history.records] == pytest.approx(expected, rel=1e-5)


def test_a_warmup_rises_to_the_schedule_by_steps() -> None:
    """As the schedule with warmup of transformers, but the first step counts."""
    rates: list[float] = []

    class Told(torch.optim.SGD):
        def step(self, closure: None = None) -> None:
            rates.append(self.param_groups[0]["lr"])
            super().step(closure)

    settings = {"epochs": 2, "batch_size": 40, "schedule": "linear", "warmup": 0.4}
    fit(headed(), TRAIN, optimizer=lambda p: Told(p, lr=1.0), **settings)
    falling = [1 - step / 6 for step in range(6)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, *falling])


def test_patience_stops_a_run_that_does_not_improve() -> None:
    history = fit(headed(), TRAIN, VALIDATION, epochs=30, lr=0.0, patience=2)
    assert len(history.records) == 3
    assert history.best_epoch == 1
    assert "no better validation accuracy for 2 epochs" in history.stopped


def test_a_program_without_parameters_is_mapped_and_measured() -> None:
    program = gp.Program(
        [gp.ResizePad((1, 8, 8))], align=gp.FrequencyMap(10), contract=gp.Contract()
    )
    task = gp.compile(graph(), program)
    history = fit(task, TRAIN, VALIDATION, epochs=9)
    assert any("nothing to train" in note for note in history.notes)
    assert len(history.records) == 1
    assert history.records[0].train_accuracy == evaluate(task, TRAIN).accuracy
    assert history.best.validation_accuracy == evaluate(task, VALIDATION).accuracy
    assert bool(task.program_state()["program.align.refreshed"])


def test_without_validation_the_last_program_is_kept() -> None:
    task = headed()
    history = fit(task, TRAIN, epochs=3)
    assert history.best_epoch == 3
    assert any("no validation split" in note for note in history.notes)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"epochs": 0}, "epochs must be an integer of at least 1, not 0"),
        ({"batch_size": 2.5}, "batch_size must be an integer"),
        ({"lr": float("nan")}, "lr must be a number of at least 0"),
        ({"optimizer": "lion"}, "optimizer must be one of adam, adamw, sgd, not 'lion'"),
        ({"schedule": "step"}, "schedule must be one of .*, not 'step'"),
        ({"loss": "hinge"}, "loss must be one of .*, not 'hinge'"),
        ({"precision": "int8"}, "precision must be one of .*, not 'int8'"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"patience": 3}, "patience needs a validation split"),
        ({"optimizer": lambda p: None}, "optimizer returned a NoneType"),
        ({"schedule": lambda p: -1.0}, "the schedule returned -1.0"),
        ({"loss": lambda logits, labels: logits}, "must return a scalar"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        fit(headed(), TRAIN, **arguments)
