"""Training that goes on from what was kept is training, with one run of the source per sample."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

import graphprog as gp
from graphprog.errors import TrainingError
from graphprog.train.loop.engine import Engine
from graphprog.train.reuse import first_pass
from graphprog.train.reuse.store import OnDisk, memory_budget
from tests.support.training import digits, framed, graph, same_state

TRAIN, VALIDATION = ([part[:60] for part in digits()[name]] for name in ("train", "validation"))
SETTINGS: dict[str, Any] = {"epochs": 4, "lr": 0.05, "batch_size": 25}


class Items(Dataset[Any]):
    """Samples one by one; counts how often each is read."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor] = lambda x: x) -> None:
        self.reads = torch.zeros(len(TRAIN[0]), dtype=torch.int64)
        self.change = change

    def __len__(self) -> int:
        return len(self.reads)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        self.reads[number] += 1
        return self.change(images()[number]), int(TRAIN[1][number])


def images(part: Any = TRAIN) -> torch.Tensor:
    """Digits in the size of the source."""
    return torch.nn.functional.pad(part[0], (1, 1, 1, 1))


def headed() -> gp.ReprogrammedModel:
    return gp.compile(graph(), gp.Program(align=gp.LinearHead(10, at="features")))


def data() -> tuple[torch.Tensor, torch.Tensor]:
    return images(), TRAIN[1]


HELD_OUT = (images(VALIDATION), VALIDATION[1])


def run(reuse: str, train: Any, make: Any = headed, **more: Any) -> tuple[Any, Any]:
    task = make()
    torch.manual_seed(5)
    history = gp.fit(task, train, HELD_OUT, reuse=reuse, **{**SETTINGS, **more})
    return task, history


def agree(one: tuple[Any, Any], two: tuple[Any, Any]) -> None:
    for left, right in zip(one[1].records, two[1].records, strict=True):
        assert left.train_loss == pytest.approx(right.train_loss, rel=1e-6)
        assert left.validation_loss == pytest.approx(right.validation_loss, rel=1e-6)
        assert left.train_accuracy == right.train_accuracy
    before, after = (task.program_state() for task, _ in (one, two))
    for name, value in before.items():
        torch.testing.assert_close(value, after[name], rtol=1e-5, atol=1e-6)


def loader(**settings: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*data()), batch_size=20, shuffle=True, **settings)


DATA: dict[str, Callable[[], Any]] = {
    "tensors": data,
    "a data set": Items,
    "a loader": loader,
    "a loader with its generator": lambda: loader(generator=torch.Generator().manual_seed(1)),
    "a loader that drops the last batch": lambda: DataLoader(Items(), 25, drop_last=True),
}


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of every run of the source."""
    found: list[int] = []
    first, whole = Engine.first, Engine.forward

    def count(engine: Any, batch: Any) -> Any:
        found.append(len(batch.inputs[0]))
        return first(engine, batch)

    def count_whole(engine: Any, batch: Any, read: bool) -> Any:
        found.extend([] if batch.kept else [len(batch.inputs[0])])
        return whole(engine, batch, read)

    monkeypatch.setattr(Engine, "first", count)
    monkeypatch.setattr(Engine, "forward", count_whole)
    return found


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("reuse", ["memory", "disk"])
def test_the_result_is_that_of_running_the_source_in_every_epoch(
    name: str, reuse: str, rows: list[int]
) -> None:
    expected = run("off", DATA[name]())
    del rows[:]
    found = run(reuse, DATA[name]())
    agree(expected, found)
    assert found[1].notes == expected[1].notes
    assert sum(rows) <= 60 + 60 + 2 * 25  # of each split, one batch is run as a whole, too


def inside() -> gp.ReprogrammedModel:
    added = gp.Additive(at="features", value=gp.Learnable("normal", shape=(64,)))
    return gp.compile(graph(), gp.Program([added], align=gp.LinearHead(10, at="features")))


def mapped() -> gp.ReprogrammedModel:
    added = gp.Additive(at="features", value=gp.Learnable("normal", shape=(64,)))
    return gp.compile(graph(), gp.Program([added], align=gp.IterativeMap(10)))


@pytest.mark.parametrize("make", [inside, mapped])
def test_programs_inside_and_counted_maps(make: Any) -> None:
    agree(run("off", data(), make), run("auto", data(), make))


def test_bf16_is_kept_as_it_is() -> None:
    expected, found = (run(reuse, data(), precision="bf16") for reuse in ("off", "memory"))
    for left, right in zip(expected[1].records, found[1].records, strict=True):
        assert left.train_loss == pytest.approx(right.train_loss, rel=1e-2)


def test_samples_are_read_once_but_for_checks() -> None:
    items = Items()
    run("memory", items)
    assert items.reads.sum() <= len(items) + 32 + 31 + 4 * 4


def test_random_samples_are_not_kept() -> None:
    def noisy(x: torch.Tensor) -> torch.Tensor:
        return x + 0.1 * torch.rand(())

    with pytest.warns(UserWarning, match="its samples are random"):
        found = run("memory", Items(noisy))
    quiet = run("auto", Items(noisy))
    assert any("its samples are random" in note for note in quiet[1].notes)
    agree(run("off", Items(noisy)), quiet)
    agree(quiet, found)


def rarely(x: torch.Tensor) -> torch.Tensor:
    return x.flip(-1) if torch.rand(()) < 1e-9 else x


@pytest.mark.parametrize("workers", [None, 0, 1])
def test_a_rare_change_is_found_by_the_numbers_that_it_draws(workers: int | None) -> None:
    items: Any = Items(rarely)
    if workers is not None:
        items = DataLoader(items, 30, num_workers=workers)
    assert any("its samples are random" in note for note in run("auto", items, epochs=2)[1].notes)


def test_samples_that_a_worker_reads_are_kept() -> None:
    items, more = Items(), {"epochs": 2}
    expected = run("off", DataLoader(items, 30, shuffle=True, num_workers=1), **more)
    agree(expected, run("memory", DataLoader(items, 30, shuffle=True, num_workers=1), **more))
    assert not items.reads.any()  # this process read nothing, and opened nothing


@pytest.mark.parametrize("split", ["training", "validation"])
def test_samples_that_change_are_run_again(split: str) -> None:
    def changing(reuse: str) -> tuple[Any, Any]:
        train, held_out = ([part.clone() for part in one] for one in (data(), HELD_OUT))
        changed = train if split == "training" else held_out

        def change(task: Any, record: Any) -> None:
            if record.epoch == 2:
                changed[0].add_(0.1)

        task = headed()
        settings = {**SETTINGS, "callbacks": [change], "reuse": reuse}
        return task, gp.fit(task, tuple(train), tuple(held_out), **settings)

    with pytest.warns(UserWarning, match="samples changed while"):
        found = changing("memory")
    agree(changing("off"), found)


def test_a_program_on_the_input_keeps_nothing() -> None:
    task = framed(gp.LinearHead(10, at="features"))
    parts = [tuple(part) for part in (TRAIN, VALIDATION)]
    with pytest.warns(UserWarning, match="before the first product"):
        history = gp.fit(task, *parts, reuse="memory", epochs=2)
    assert len(history.records) == 2


def test_a_full_disk_is_a_note_and_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(store: OnDisk, values: torch.Tensor) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(OnDisk, "add", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        found = run("disk", data())
    agree(run("off", data()), found)


def test_a_small_memory_is_a_note_or_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_pass, "memory_budget", lambda: 100)
    with pytest.warns(UserWarning, match="half of the memory is"):
        run("memory", data(), epochs=2)
    files: list[Path] = []
    tensor = OnDisk.tensor

    def note(store: OnDisk) -> torch.Tensor:
        files.append(store._path)
        return tensor(store)

    monkeypatch.setattr(OnDisk, "tensor", note)
    agree(run("off", data()), run("auto", data()))
    assert len(files) == 4  # features and labels, of both splits
    assert not any(path.parent.exists() for path in files)
    monkeypatch.setattr(first_pass, "disk_budget", lambda folder: 100)
    agree(run("off", data()), full := run("auto", data()))
    assert any("neither in half of the memory nor of the disk" in note for note in full[1].notes)


def test_the_budget_is_a_part_of_the_memory() -> None:
    assert 0 < memory_budget() < 2**50


def test_what_cannot_be_numbered_keeps_nothing() -> None:
    class Own(torch.utils.data.Sampler[int]):
        def __iter__(self) -> Any:
            return iter(range(60))

        def __len__(self) -> int:
            return 60

    with pytest.warns(UserWarning, match="only its loader knows the order"):
        run("memory", DataLoader(TensorDataset(*data()), 20, sampler=Own()), epochs=2)


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_resumed_run_is_an_uninterrupted_one(tmp_path: Path, epochs: int) -> None:
    whole = run("memory", data())
    run("memory", data(), epochs=epochs, checkpoint=tmp_path)
    resumed = run("memory", data(), checkpoint=tmp_path)
    assert same_state(whole[0], resumed[0])
    losses = [[record.train_loss for record in one[1].records] for one in (whole, resumed)]
    assert losses[0] == losses[1]


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(TrainingError, match="reuse"):
        run("cache", data())
