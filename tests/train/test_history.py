"""History, curves, evaluation, TensorBoard and progress."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import graphprog as gp
from graphprog.errors import FileError
from graphprog.train import EpochRecord, Evaluation, History, evaluate, fit
from graphprog.train.loop.state import RunState
from tests.support.training import UNIT, digits, framed, graph, headed

TRAIN, VALIDATION = digits()["train"], digits()["validation"]


def made_up(epochs: int, validated: bool = True) -> History:
    records = tuple(
        EpochRecord(
            epoch=number + 1,
            train_loss=2.0 / (number + 1),
            train_accuracy=1 - 0.8 / (number + 1),
            validation_loss=2.2 / (number + 1) if validated else None,
            validation_accuracy=0.9 - 0.7 / (number + 1) if validated else None,
            lr=0.01,
            seconds=0.5,
        )
        for number in range(epochs)
    )
    return History(records, epochs, "", ("a note",), 0.5 * epochs, {"lr": 0.01}, {"training": 9})


def test_a_history_travels_as_json() -> None:
    history = fit(framed(gp.BayesianMap(10)), TRAIN, VALIDATION, epochs=2)
    text = json.dumps(history.to_json(), allow_nan=False)
    again = History.from_json(json.loads(text))
    assert again == history
    assert again.seconds == history.seconds
    with pytest.raises(FileError, match="training history"):
        History.from_json({"records": [{"epoch": 1}]})


def test_a_history_prints_as_a_short_table() -> None:
    lines = str(made_up(100)).splitlines()
    assert len(lines) < 20
    assert any(line.startswith("  100*") for line in lines)
    assert lines[-2] == "100 epochs in 50.0 s; best: 100"
    assert lines[-1] == "note: a note"
    assert str(made_up(3, validated=False)).count(" - ") == 2 * 3


@pytest.mark.parametrize("validated", [True, False])
def test_curves_show_both_splits_and_the_best_epoch(validated: bool, tmp_path: Path) -> None:
    history = made_up(7, validated)
    path = tmp_path / "curves.png"
    figure = history.plot(path)
    loss, accuracy = figure.axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in loss.get_lines()}
    assert drawn["training"] == [record.train_loss for record in history.records]
    assert ("validation" in drawn) == validated
    assert drawn["program kept"] == [history.best.validation_loss or history.best.train_loss]
    assert accuracy.get_ylabel() == "accuracy in %"
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_evaluation_counts_by_class() -> None:
    program = gp.Program([gp.ResizePad((1, 8, 8))], align=gp.RandomMap(10, seed=1), contract=UNIT)
    task = gp.compile(graph(), program).train()
    images, labels = VALIDATION
    kept = labels != 3
    found = evaluate(task, (images[kept], labels[kept]), batch_size=7)
    with torch.no_grad():
        predicted = task(images[kept]).argmax(1)
    assert found.count == int(kept.sum()) == int(found.confusion.sum())
    assert found.accuracy == pytest.approx(float((predicted == labels[kept]).float().mean()))
    for row in range(10):
        for column in range(10):
            both = (labels[kept] == row) & (predicted == column)
            assert int(found.confusion[row, column]) == int(both.sum())
    assert found.class_accuracy[3] is None
    assert "class 3: no examples" in str(found)
    assert isinstance(found, Evaluation)


def test_tensorboard_gets_numbers_and_the_pattern(tmp_path: Path) -> None:
    history = fit(framed(gp.IterativeMap(10)), TRAIN, VALIDATION, epochs=2, log_dir=tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    written = {
        name: [round(event.value, 5) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }
    assert written["loss/training"] == [round(r.train_loss, 5) for r in history.records]
    assert written["accuracy/validation"] == [
        round(r.validation_accuracy or 0, 5) for r in history.records
    ]
    assert set(written) >= {"lr", "mapping/changes", "loss/validation", "accuracy/training"}
    assert events.Tags()["images"] == ["program/additive"]


def test_progress_prints_lines_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    fit(headed(), TRAIN, VALIDATION, epochs=2)
    fit(headed(), TRAIN, VALIDATION, epochs=2, progress=False)
    silent = capsys.readouterr()
    assert silent.err == silent.out == ""
    fit(headed(), TRAIN, VALIDATION, epochs=2, progress=True)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 2
    assert "epoch 2/2" in told.err
    assert "validation accuracy" in told.err


def test_a_bar_is_drawn_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    fit(headed(), TRAIN, VALIDATION, epochs=2)
    assert "epoch 2/2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("measured", "best"),
    [
        ([(0.5, 1.0), (0.7, 1.0), (0.6, 0.1)], 2),
        ([(0.5, 1.0), (0.5, 0.9), (0.5, 0.95)], 2),
        ([(0.5, 1.0), (0.5, 1.0)], 1),
        ([(None, None), (None, None)], 2),
    ],
)
def test_the_best_epoch_is_most_accurate_then_of_lower_loss_then_earlier(
    measured: list[tuple[float | None, float | None]], best: int
) -> None:
    state = RunState()
    for number, (accuracy, loss) in enumerate(measured, 1):
        record = EpochRecord(number, 1.0, 0.5, loss, accuracy, 0.01, 1.0)
        state.add(record, {"program.a": torch.tensor(number)}, None)
    assert state.best_epoch == best
    assert state.best == {"program.a": torch.tensor(best)}
