"""What training refuses, stops at, or warns of."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import nn

import graphprog as gp
from graphprog.errors import CaptureError, DataError, FileError, InterfaceError, TrainingError
from graphprog.train import evaluate, fit
from graphprog.train.loop.engine import running
from tests.support.training import UNIT, digits, framed, graph, headed, same_state

TRAIN, VALIDATION = digits()["train"], digits()["validation"]
PLACE = gp.ResizePad((1, 8, 8))


class Detached(nn.Module):
    """The second branch does not reach the logits; the third reaches them without gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.aside, self.cut = (nn.Linear(4, 3) for _ in range(3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.used(x) + self.cut(x).detach(), self.aside(x)


def test_a_part_that_does_not_reach_the_logits_is_named() -> None:
    captured = gp.capture(Detached(), (torch.rand(2, 4),))
    stray = gp.Additive(at="aside:out", name="stray")
    output = captured.interfaces().resolve("used:out").key
    with pytest.raises(InterfaceError, match="stray: no output depends on aside:out"):
        gp.compile(captured, gp.Program([stray], align=gp.LinearHead(3, at=output)))
    task = gp.compile(captured, gp.Program([stray]))
    start = task.program_state()

    def loss(outputs: tuple[torch.Tensor, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs[0], labels)

    with pytest.raises(TrainingError, match=r"program\.stray\.value \(at aside:out\)") as error:
        fit(task, (torch.rand(20, 4), torch.arange(20) % 3), loss=loss)
    assert "print(graph)" in str(error.value)
    assert all(torch.equal(start[name], value) for name, value in task.program_state().items())


def test_an_empty_mask_is_an_error() -> None:
    nothing = gp.masks.given(torch.zeros(1, 10, 10))
    program = gp.Program(
        [PLACE, gp.Additive(mask=nothing)], align=gp.FrequencyMap(10), contract=UNIT
    )
    with pytest.raises(TrainingError, match="its mask is empty"):
        fit(gp.compile(graph(), program), TRAIN)


def test_a_gradient_of_zero_is_a_warning() -> None:
    stuck = gp.Additive(value=gp.Learnable("ones", 5.0), clip=(0.0, 1.0))
    program = gp.Program([PLACE, stuck], align=gp.FrequencyMap(10), contract=UNIT)
    with pytest.warns(UserWarning, match="zero everywhere"):
        history = fit(gp.compile(graph(), program), TRAIN, epochs=1)
    assert any("clip bounds" in note for note in history.notes)


def explode_at(step: int, value: float) -> object:
    calls = 0

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += torch.is_grad_enabled()
        fine = nn.functional.cross_entropy(logits, labels)
        return fine * value if calls == step else fine

    return loss


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_later_keeps_the_best_program(value: float) -> None:
    task, reference = headed(), headed()
    kept = fit(reference, TRAIN, VALIDATION, epochs=2, batch_size=50)
    # one call for the look at gradients, 4 an epoch: call 11 is batch 1 of the third epoch
    with pytest.warns(UserWarning, match="diverged: the loss of batch 1 of epoch 3"):
        history = fit(task, TRAIN, VALIDATION, epochs=9, batch_size=50, loss=explode_at(11, value))
    assert len(history.records) == 2
    assert f"the program of epoch {kept.best_epoch} was kept" in history.stopped
    assert same_state(task, reference)
    assert evaluate(task, VALIDATION).accuracy == history.best.validation_accuracy
    assert task.summary["stopped"] == history.stopped


def test_divergence_in_the_first_epoch_is_an_error_and_restores_the_start() -> None:
    task, start = headed(), headed()
    with pytest.raises(TrainingError, match="diverged before any epoch was finished"):
        fit(task, TRAIN, VALIDATION, loss=explode_at(3, float("nan")))
    assert same_state(task, start)
    assert not task.training


def test_a_parameter_that_is_not_finite_is_named() -> None:
    class Poison(torch.optim.SGD):
        def step(self, closure: None = None) -> None:
            super().step(closure)
            with torch.no_grad():
                self.param_groups[0]["params"][0].view(-1)[0] = torch.nan

    task = framed(gp.FrequencyMap(10))
    with pytest.raises(TrainingError, match=r"program\.additive\.value is not finite"):
        fit(task, TRAIN, epochs=1, batch_size=200, optimizer=lambda p: Poison(p, lr=0.1))


def test_a_model_that_gives_nan_is_no_mapping() -> None:
    program = gp.Program(
        [gp.Additive(at="head:out", value=gp.Fixed(torch.full((12,), torch.inf))), PLACE],
        align=gp.BayesianMap(10),
        contract=UNIT,
    )
    task = gp.compile(graph(), program)
    with pytest.raises(TrainingError, match="values that the alignment reads"):
        fit(task, TRAIN)


def test_source_weights_that_change_meanwhile_are_found() -> None:
    captured = gp.capture(nn.Linear(4, 5), (torch.rand(2, 4),))
    task = gp.compile(captured, gp.Program(align=gp.LinearHead(3)))

    def meddling(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            next(task.source.parameters()).view(-1)[0] += 1e-6
        return nn.functional.cross_entropy(logits, labels)

    with pytest.raises(TrainingError, match="source weights changed during training"):
        fit(task, (torch.rand(20, 4), torch.arange(20) % 3), epochs=1, loss=meddling)


def test_an_interrupt_passes_through_and_leaves_the_task_usable() -> None:
    task = headed()

    def interrupted(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="in epoch 1 of 20; the task holds"):
        fit(task, TRAIN, loss=interrupted)
    assert same_state(task, headed())
    assert not task.training
    assert evaluate(task, VALIDATION).count == 100


@pytest.mark.parametrize("call", [fit, evaluate])
def test_a_graph_or_a_module_is_not_a_task(call: Any) -> None:
    with pytest.raises(TrainingError, match="a compiled task is needed, not a Graph") as error:
        call(graph(), TRAIN)
    assert "task = gp.compile(graph, gp.Program" in str(error.value)
    with pytest.raises(TrainingError, match=r"not a Linear(.|\n)*graph = gp.capture"):
        call(nn.Linear(4, 3), TRAIN)


def test_a_log_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="logs: cannot be created or written: Not a directory"):
        fit(headed(), TRAIN, log_dir=tmp_path / "file" / "logs")


def small(model: nn.Module) -> gp.ReprogrammedModel:
    parts = [gp.Additive(at="input:input")]
    return gp.compile(
        gp.capture(model, (torch.ones(2, 4),)), gp.Program(parts, align=gp.LinearHead(3))
    )


def test_modes_of_the_caller_change_nothing_that_is_made() -> None:
    """Autocast, inference mode and no_grad, at capture, compiling, training and evaluation."""
    data = (torch.rand(20, 4), torch.arange(20) % 3)
    model = nn.Linear(4, 5)
    expected = small(model)
    fit(expected, data, epochs=1)
    for mode in (torch.autocast("cpu", torch.bfloat16), torch.inference_mode(), torch.no_grad()):
        with mode:
            task = small(model)
        assert task.base.fingerprint == expected.base.fingerprint
        assert {value.dtype for value in task.program_state().values()} == {torch.float32}
        fit(task, data, epochs=1)
        assert same_state(task, expected)
        with mode:
            assert evaluate(task, data) == evaluate(expected, data)
    task = small(model)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        fit(task, data, epochs=1)
    assert same_state(task, expected)


def test_training_in_inference_mode_is_refused() -> None:
    data = (torch.rand(20, 4), torch.arange(20) % 3)
    task = small(nn.Linear(4, 5))
    with torch.inference_mode():
        with pytest.raises(TrainingError, match=r"under torch.inference_mode\(\) nothing"):
            fit(task, data)
        with pytest.raises(CaptureError, match=r"weight was made under torch\.inference_mode"):
            small(nn.Linear(4, 5))
        task.program.align.bias = nn.Parameter(torch.zeros(3))
    with pytest.raises(TrainingError, match=r"align.bias was made under torch\.inference_mode"):
        fit(task, data)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 8), nn.Linear(8, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(ids).mean(1))


@pytest.mark.parametrize("wrong", [9, -1])
def test_ids_outside_the_table_are_named(wrong: int) -> None:
    ids = torch.arange(80).reshape(20, 4) % 9
    captured = gp.capture(Words(), (ids[:2],), dynamic_axes={"ids": {0: "batch", 1: "sequence"}})
    program = gp.Program([gp.Concatenative(at="tokens", length=2)], align=gp.LinearHead(3))
    task = gp.compile(captured, program)
    ids[7, 2] = wrong
    said = f"the id {wrong}, but the ids of its table are 0 to 8"
    with pytest.raises(DataError, match=f"input 'ids': row 7 of the batch has {said}"):
        task(ids)
    with pytest.raises(DataError, match=f"training example 7: .*{said}"):
        fit(task, (ids, torch.arange(20) % 3))


def test_nothing_is_said_about_a_run_without_faults() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = fit(headed(), TRAIN, VALIDATION, epochs=1)
    assert history.notes == ()
    assert history.stopped == ""


def test_evaluate_refuses_bad_data_too() -> None:
    with pytest.raises(DataError, match=r"evaluation example \d+: labels lie in"):
        evaluate(headed(), (VALIDATION[0], VALIDATION[1] + 1))


def test_an_accelerator_of_the_users_keeps_its_settings() -> None:
    own = Accelerator(mixed_precision="bf16", gradient_accumulation_steps=4, cpu=True)
    expected, task = headed(), headed()
    try:
        fit(task, TRAIN, epochs=1)
        assert own.mixed_precision == "bf16"
        assert own.gradient_accumulation_steps == 4
    finally:
        AcceleratorState._reset_state()
        GradientState._reset_state()
    fit(expected, TRAIN, epochs=1)
    assert same_state(task, expected)


def test_the_processor_is_asked_for_by_one_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate keeps for good the first device that it was given."""
    PartialState()
    monkeypatch.setitem(PartialState._shared_state, "device", torch.device("meta"))
    with running(headed(), cpu=True) as engine:
        assert engine.device.type == "cpu"
    assert PartialState().device.type == "meta"


def copied(source: nn.Module) -> None:
    """What a move to a GPU does to a parameter: it stays, its memory is another."""
    for parameter in source.parameters():
        parameter.data = parameter.data.clone()


def replaced(source: nn.Module) -> None:
    """What a move to the meta device does to a parameter: another one takes its place."""
    nn.Module._apply(source, lambda value: value.to("meta"))


@pytest.mark.parametrize("move", [replaced, copied])
def test_source_tensors_moved_away_get_their_memory_back(
    move: Callable[[nn.Module], object],
) -> None:
    task = headed()
    before = {
        name: (value.data_ptr(), value.clone()) for name, value in task.source.state_dict().items()
    }
    with running(task):
        move(task.source)
    after = task.source.state_dict()
    assert all(after[name].data_ptr() == pointer for name, (pointer, _) in before.items())
    assert all(torch.equal(after[name], value) for name, (_, value) in before.items())


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_a_gpu_is_used_and_left(precision: str, tmp_path: Path) -> None:
    task, resumed = framed(gp.BayesianMap(10)), framed(gp.BayesianMap(10))
    history = fit(task, TRAIN, VALIDATION, epochs=3, precision=precision, checkpoint=tmp_path)
    assert {value.device.type for value in task.state_dict().values()} == {"cpu"}
    assert fit(resumed, TRAIN, VALIDATION, epochs=3, precision=precision, checkpoint=tmp_path)
    assert same_state(task, resumed)
    found = evaluate(task, VALIDATION, precision=precision)
    assert found.accuracy == pytest.approx(history.best.validation_accuracy, abs=0.02)
