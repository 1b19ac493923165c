"""Checkpoints: a run that was cut off and taken up again is a run that never was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import graphprog as gp
from graphprog.errors import FileError, TrainingError
from graphprog.train import History, evaluate, fit
from graphprog.train.loop.checkpoint import FILE_NAME
from tests.support.training import deadly_loss, digits, framed, headed, same_state

TRAIN, VALIDATION = digits()["train"], digits()["validation"]
SETTINGS: dict[str, Any] = {"epochs": 5, "lr": 0.05, "batch_size": 50, "schedule": "cosine"}
CALLS_BEFORE, CALLS_AN_EPOCH = 1, 4 + 2  # the look at gradients; steps and validation batches


class CutOffError(Exception):
    pass


class Cutting:
    """Cross-entropy that fails at one call; equal names make equal runs."""

    def __init__(self, at: int | None, error: type[BaseException] = CutOffError) -> None:
        self.left, self.error = at, error

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise self.error
        return functional.cross_entropy(logits, labels)


def cut_and_resume(make: Any, folder: Path, **settings: Any) -> tuple[Any, Any, History, History]:
    """An uninterrupted run, and one that is cut off in its fourth epoch and resumed."""
    whole, cut, resumed = make(), make(), make()
    arguments = {**SETTINGS, **settings}
    one = fit(whole, TRAIN, VALIDATION, loss=Cutting(None), **arguments)
    loss = Cutting(CALLS_BEFORE + 3 * CALLS_AN_EPOCH + 2)
    with pytest.raises(CutOffError):
        fit(cut, TRAIN, VALIDATION, loss=loss, checkpoint=folder, **arguments)
    two = fit(resumed, TRAIN, VALIDATION, loss=Cutting(None), checkpoint=folder, **arguments)
    return whole, resumed, one, two


ALIGNMENTS = {
    "iterative": gp.IterativeMap(10),
    "every second epoch": gp.BayesianMap(10, every=2),
    "from the epoch": gp.BayesianMap(10, top=0.2, collect="epoch"),
    "once": gp.FrequencyMap(10),
    "linear": gp.LinearHead(10),
}


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_resumed_is_uninterrupted(kind: str, tmp_path: Path) -> None:
    whole, resumed, one, two = cut_and_resume(lambda: framed(ALIGNMENTS[kind]), tmp_path / "run")
    assert same_state(whole, resumed)
    assert one == two
    assert whole.summary == resumed.summary
    assert os.listdir(tmp_path / "run") == [FILE_NAME]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_every_optimizer_resumes(optimizer: str, tmp_path: Path) -> None:
    whole, resumed, one, two = cut_and_resume(
        headed, tmp_path, optimizer=optimizer, accumulate=2, precision="bf16", weight_decay=0.01
    )
    assert same_state(whole, resumed)
    assert one == two


def test_a_loader_with_a_generator_of_its_own_resumes(tmp_path: Path) -> None:
    def loader() -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(4)
        return DataLoader(TensorDataset(*TRAIN), batch_size=50, shuffle=True, generator=generator)

    whole, cut, resumed = headed(), headed(), headed()
    one = fit(whole, loader(), loss=Cutting(None), **SETTINGS)
    with pytest.raises(CutOffError):
        fit(cut, loader(), loss=Cutting(11), checkpoint=tmp_path, **SETTINGS)
    two = fit(resumed, loader(), loss=Cutting(None), checkpoint=tmp_path, **SETTINGS)
    assert same_state(whole, resumed)
    assert one == two


CHILD = """
import sys, torch
torch.set_num_threads(int(sys.argv[2]))
from graphprog.train import fit
from tests.support.training import deadly_loss, digits, framed
import graphprog as gp
data = digits()
fit(framed(gp.IterativeMap(10)), data["train"], data["validation"], epochs=5, lr=0.05,
    batch_size=50, loss=deadly_loss, checkpoint=sys.argv[1])
"""


def test_a_killed_process_is_taken_up_by_another(tmp_path: Path) -> None:
    # the second step of the third epoch
    environment = {**os.environ, "DEADLY_CALL": str(CALLS_BEFORE + 2 * CALLS_AN_EPOCH + 2)}
    arguments = [sys.executable, "-c", CHILD, str(tmp_path), str(torch.get_num_threads())]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(arguments, cwd=root, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    settings: dict[str, Any] = {"epochs": 5, "lr": 0.05, "batch_size": 50, "loss": deadly_loss}
    whole, resumed = framed(gp.IterativeMap(10)), framed(gp.IterativeMap(10))
    one = fit(whole, TRAIN, VALIDATION, **settings)
    two = fit(resumed, TRAIN, VALIDATION, checkpoint=tmp_path, **settings)
    assert same_state(whole, resumed)
    assert one == two


def test_an_interrupted_run_goes_on_with_the_task_it_left(tmp_path: Path) -> None:
    whole, task = headed(), headed()
    one = fit(whole, TRAIN, VALIDATION, loss=Cutting(None), **SETTINGS)
    loss = Cutting(CALLS_BEFORE + CALLS_AN_EPOCH + 2, KeyboardInterrupt)
    with pytest.raises(
        KeyboardInterrupt, match="in epoch 2 of 5; the task holds the program of e"
    ) as e:
        fit(task, TRAIN, VALIDATION, loss=loss, checkpoint=tmp_path, **SETTINGS)
    assert f"epochs 1 to 1 are saved in {tmp_path}: to go on, call gp.fit again" in str(e.value)
    assert evaluate(task, VALIDATION).accuracy == one.records[0].validation_accuracy
    two = fit(task, TRAIN, VALIDATION, loss=Cutting(None), checkpoint=tmp_path, **SETTINGS)
    assert same_state(whole, task)
    assert one == two


def test_a_finished_run_returns_at_once(tmp_path: Path) -> None:
    first, second = headed(), headed()
    one = fit(first, TRAIN, VALIDATION, checkpoint=tmp_path, loss=Cutting(None), epochs=3)
    two = fit(second, TRAIN, VALIDATION, checkpoint=tmp_path, loss=Cutting(0), epochs=3)
    assert one == two
    assert one.seconds == two.seconds
    assert same_state(first, second)
    assert first.summary == second.summary
    assert evaluate(second, VALIDATION).accuracy == one.best.validation_accuracy


@pytest.mark.parametrize("kind", ["linear", "from the epoch"])
def test_more_epochs_go_on_in_the_same_folder(kind: str, tmp_path: Path) -> None:
    whole, again = framed(ALIGNMENTS[kind]), framed(ALIGNMENTS[kind])
    settings: dict[str, Any] = {"batch_size": 50, "lr": 0.05}
    one = fit(whole, TRAIN, VALIDATION, epochs=4, **settings)
    first = fit(again, TRAIN, VALIDATION, epochs=2, checkpoint=tmp_path, **settings)
    assert len(first.records) == 2
    two = fit(again, TRAIN, VALIDATION, epochs=4, checkpoint=tmp_path, **settings)
    assert same_state(whole, again)
    assert one == two
    with pytest.raises(TrainingError, match="has 4 epochs of this run, more than epochs=3"):
        fit(again, TRAIN, VALIDATION, epochs=3, checkpoint=tmp_path, **settings)


def test_an_interrupt_while_an_epoch_is_reported_saves_it(tmp_path: Path) -> None:
    def interrupting(task: gp.ReprogrammedModel, record: gp.train.EpochRecord) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt

    task, settings = headed(), {**SETTINGS, "epochs": 3, "checkpoint": tmp_path}
    with pytest.raises(KeyboardInterrupt, match="epochs 1 to 2 are saved"):
        fit(task, TRAIN, VALIDATION, callbacks=[interrupting], **settings)
    history = fit(task, TRAIN, VALIDATION, **settings)
    assert [record.epoch for record in history.records] == [1, 2, 3]


def test_a_run_that_stopped_early_stays_stopped(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"lr": 0.0, "patience": 1, "checkpoint": tmp_path}
    one = fit(headed(), TRAIN, VALIDATION, **arguments)
    two = fit(headed(), TRAIN, VALIDATION, **arguments)
    assert len(one.records) == 2
    assert one == two


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lr": 0.02}, "lr was 0.01 there and is 0.02 here"),
        ({"seed": 7}, "seed was 0 there and is 7 here"),
        (
            {"loss": deadly_loss},
            "loss was 'cross_entropy' there and is 'tests.support.training.deadly",
        ),
        ({"train": VALIDATION}, "training data was"),
        ({"train": (TRAIN[0].flip(3), TRAIN[1])}, "checksum"),
        ({"validation": None}, "validation data was"),
        ({"task": framed(gp.LinearHead(10))}, "program was"),
        ({"task": headed(seed=1)}, "program seed was 0 there and is 1 here"),
    ],
)
def test_a_folder_is_for_one_run(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"train": TRAIN, "validation": VALIDATION}
    fit(headed(), **arguments, epochs=1, checkpoint=tmp_path)
    task = changes.pop("task", None) or headed()
    with pytest.raises(TrainingError, match=said) as error:
        fit(task, **{**arguments, **changes}, epochs=1, checkpoint=tmp_path)
    assert "another checkpoint folder" in str(error.value)


def test_a_source_with_other_weights_is_another_run(tmp_path: Path) -> None:
    program = gp.Program(align=gp.LinearHead(3))
    data = (torch.rand(20, 4), torch.arange(20) % 3)
    captured = [gp.capture(torch.nn.Linear(4, 5), (torch.rand(2, 4),)) for _ in range(2)]
    fit(gp.compile(captured[0], program), data, epochs=1, checkpoint=tmp_path)
    with pytest.raises(TrainingError, match="source weights was"):
        fit(gp.compile(captured[1], program), data, epochs=1, checkpoint=tmp_path)


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    fit(headed(), TRAIN, epochs=1, checkpoint=tmp_path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-3] ^= 1
    version = whole.replace(b'\\"version\\":2', b'\\"version\\":9', 1)
    for damaged in (b"", whole[:100], whole[:-1], bytes(flipped), b"x" * len(whole), version):
        assert damaged != whole
        path.write_bytes(damaged)
        with pytest.raises(FileError, match=FILE_NAME):
            fit(headed(), TRAIN, epochs=1, checkpoint=tmp_path)
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(FileError, match="not the checkpoint of a training run"):
        fit(headed(), TRAIN, epochs=1, checkpoint=tmp_path)


def test_a_checkpoint_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be created"):
        fit(headed(), TRAIN, epochs=1, checkpoint=tmp_path / "file" / "run")


def test_an_optimizer_whose_state_cannot_be_kept_says_so(tmp_path: Path) -> None:
    class Odd(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            super().step(closure)
            self.state[self.param_groups[0]["params"][0]]["odd"] = object()

    with pytest.raises(TrainingError, match="a object cannot be kept in a checkpoint"):
        fit(headed(), TRAIN, optimizer=lambda p: Odd(p, lr=0.1), checkpoint=tmp_path)
