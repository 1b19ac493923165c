"""Runs that share a source give what each gives alone, and run the source on a sample once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

import graphprog as gp
from graphprog.errors import TrainingError
from graphprog.train.loop.engine import Engine
from tests.support.training import digits, graph

TRAIN = [part[:40] for part in digits()["train"]]
IMAGES = torch.nn.functional.pad(TRAIN[0], (1, 1, 1, 1))
DATA = (IMAGES, TRAIN[1])
SHORT: dict[str, Any] = {"epochs": 3, "batch_size": 16}


class Items(Dataset[Any]):
    """Samples one by one; counts how often they are read."""

    def __init__(self) -> None:
        self.reads = 0

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        self.reads += 1
        return IMAGES[number], int(TRAIN[1][number])


def headed(seed: int = 0) -> gp.ReprogrammedModel:
    return gp.compile(graph(), gp.Program(align=gp.LinearHead(10, at="features")), seed)


def shifted(by: float) -> gp.ReprogrammedModel:
    """A head behind a constant that training leaves as it is."""
    fixed = gp.Additive(at="input", value=gp.Fixed(torch.full((1, 10, 10), by)))
    return gp.compile(graph(), gp.Program([fixed], align=gp.LinearHead(10, at="features")))


def patterned(seed: int) -> gp.ReprogrammedModel:
    added = gp.Additive(value=gp.Learnable("normal"))
    return gp.compile(graph(), gp.Program([added], align=gp.FixedMap(10)), seed)


def equal(one: gp.ReprogrammedModel, other: gp.ReprogrammedModel) -> None:
    after = other.program_state()
    for name, value in one.program_state().items():
        torch.testing.assert_close(value, after[name], rtol=1e-6, atol=1e-6)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of every run of the source for keeping."""
    found: list[int] = []
    first = Engine.first

    def count(engine: Any, batch: Any) -> Any:
        found.append(len(batch.inputs[0]))
        return first(engine, batch)

    monkeypatch.setattr(Engine, "first", count)
    return found


def test_learning_rates_and_seeds_share_the_source(rows: list[int]) -> None:
    settings: dict[str, dict[str, Any]] = {
        "slow": {**SHORT, "lr": 0.01, "validation": DATA},
        "fast": {**SHORT, "lr": 0.1, "seed": 3, "validation": DATA},
        "stopped": {**SHORT, "lr": 3.0, "epochs": 6, "patience": 1, "validation": DATA},
        "one epoch": {**SHORT, "epochs": 1, "optimizer": "sgd"},
    }
    alone = {}
    for number, (name, own) in enumerate(settings.items()):
        task = headed(number)
        alone[name] = (task, gp.fit(task, DATA, **own))
    del rows[:]
    tasks = {name: headed(number) for number, name in enumerate(settings)}
    histories = gp.fit_many({name: (tasks[name], DATA, settings[name]) for name in settings})
    assert sum(rows) == len(IMAGES), "both splits are the same samples"
    for name, (task, history) in alone.items():
        equal(task, tasks[name])
        assert histories[name].best_epoch == history.best_epoch
        assert len(histories[name].records) == len(history.records)


def test_other_constants_before_the_boundary_are_not_shared(rows: list[int]) -> None:
    tasks = {"none": shifted(0.0), "some": shifted(0.3), "again": shifted(0.3)}
    gp.fit_many({name: (task, DATA, SHORT) for name, task in tasks.items()})
    assert sum(rows) == 2 * len(IMAGES)
    alone = shifted(0.3)
    gp.fit(alone, DATA, **SHORT)
    equal(alone, tasks["some"])
    equal(alone, tasks["again"])


def test_samples_are_read_once_where_the_program_acts_first() -> None:
    items, apart = Items(), Items()
    tasks = [patterned(seed) for seed in (1, 2)]
    runs = {f"seed {at}": (task, items, {**SHORT, "seed": at}) for at, task in enumerate(tasks)}
    gp.fit_many(runs)
    assert items.reads <= len(IMAGES) + 2 * 64 + 2 * 3 * 4 + 2 * 16
    for at, task in enumerate(tasks):
        alone = patterned(at + 1)
        gp.fit(alone, apart, **SHORT, seed=at)
        equal(alone, task)


def test_samples_that_change_between_runs_are_run_again(rows: list[int]) -> None:
    data = tuple(part.clone() for part in DATA)

    def change(task: Any, record: Any) -> bool:
        if record.epoch == 3:
            data[0].add_(0.2)
        return False

    late = headed()
    runs = {
        "first": (headed(), data, {**SHORT, "callbacks": [change]}),
        "second": (late, data, SHORT),
    }
    gp.fit_many(runs)
    alone = headed()
    gp.fit(alone, data, **SHORT)
    equal(alone, late)
    assert sum(rows) == 3 * len(IMAGES)


def test_what_is_wrong_is_told_before_the_first_run() -> None:
    task, other = headed(), headed()
    bad: list[tuple[Any, str]] = [
        ({}, "fit_many needs runs by name"),
        ([task], "fit_many needs runs by name"),
        ({"a": (task, DATA)}, "run 'a' must be a task, its data, and a mapping of settings"),
        ({"a": (task, DATA, {"rate": 1})}, "run 'a': gp.fit has no argument 'rate'"),
        ({"a": (task, DATA, {}), "b": (task, DATA, {})}, "'a' and 'b' train the same task"),
    ]
    for runs, message in bad:
        with pytest.raises(TrainingError, match=message):
            gp.fit_many(runs)
    model = torch.nn.Linear(4, 3).eval()
    elsewhere = gp.compile(gp.capture(model, (torch.rand(2, 4),)), gp.Program([gp.Additive()]))
    with pytest.raises(TrainingError, match="have different sources"):
        gp.fit_many({"a": (other, DATA, {}), "b": (elsewhere, DATA, {})})


def test_an_error_names_its_run() -> None:
    runs = {"good": (headed(), DATA, SHORT), "bad": (headed(), DATA, {"lr": -1.0})}
    with pytest.raises(TrainingError) as raised:
        gp.fit_many(runs)
    assert raised.value.__notes__ == ["in run 'bad' of gp.fit_many; finished before: good"]
