"""Statistical alignments in training: from which data, when, and which mapping is kept."""

from __future__ import annotations

import pytest
import torch

import graphprog as gp
from graphprog.alignments import StatisticalModule
from graphprog.train import evaluate, fit
from tests.support.training import UNIT, digits, framed, graph

TRAIN, VALIDATION = digits()["train"], digits()["validation"]
MAPPING = "program.align.sources"


def mapping_of(task: gp.ReprogrammedModel, data: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """The mapping that the data call for under the task's program now."""
    module = task.eval().alignment
    assert isinstance(module, StatisticalModule)
    kept = task.program_state()
    with torch.no_grad():
        _, values = task.both(data[0])
    module.refresh(module.count(values, data[1]))
    found = task.program_state()[MAPPING]
    task.load_program_state(kept)
    return found


def test_a_frequency_map_is_matched_once_on_the_training_split() -> None:
    task = framed(gp.FrequencyMap(10))
    expected = mapping_of(task, TRAIN)
    assert not torch.equal(expected, mapping_of(task, VALIDATION))
    history = fit(task, TRAIN, VALIDATION, epochs=3)
    assert torch.equal(task.program_state()[MAPPING], expected)
    assert [bool(record.mapping) for record in history.records] == [True, False, False]
    assert "from 200 predictions" in history.records[0].mapping
    assert history.records[1].mapping_changes is None


@pytest.mark.parametrize("every", [1, 2])
def test_an_iterative_map_is_matched_before_every_nth_epoch(every: int) -> None:
    task = framed(gp.IterativeMap(10, every=every))
    history = fit(task, TRAIN, epochs=4, lr=1.0)
    due = [number % every == 0 for number in range(4)]
    assert [bool(record.mapping) for record in history.records] == due
    changes = [record.mapping_changes for record in history.records if record.mapping]
    assert sum(filter(None, changes[1:])) > 0


def test_the_second_mapping_is_that_of_the_program_after_the_first_epoch() -> None:
    one, two = framed(gp.IterativeMap(10)), framed(gp.IterativeMap(10))
    fit(one, TRAIN, epochs=1, lr=1.0)
    after_first = mapping_of(one, TRAIN)
    assert not torch.equal(after_first, one.program_state()[MAPPING])

    def stand_still(progress: float) -> float:
        return 1.0 if progress < 0.5 else 0.0

    fit(two, TRAIN, epochs=2, lr=1.0, schedule=stand_still)
    assert torch.equal(two.program_state()[MAPPING], after_first)


def test_the_mapping_kept_is_that_of_the_best_epoch() -> None:
    task = framed(gp.IterativeMap(10))
    history = fit(task, TRAIN, VALIDATION, epochs=6, lr=2.0)
    assert history.best_epoch < 6
    assert evaluate(task, VALIDATION).accuracy == history.best.validation_accuracy
    shorter = framed(gp.IterativeMap(10))
    fit(shorter, TRAIN, VALIDATION, epochs=history.best_epoch, lr=2.0)
    assert torch.equal(task.program_state()[MAPPING], shorter.program_state()[MAPPING])


def test_counts_from_the_epochs_own_outputs() -> None:
    task = framed(gp.BayesianMap(10, collect="epoch"))
    history = fit(task, TRAIN, epochs=3, lr=0.0)
    totals = [record.mapping.split("classes from ")[1].split(" ")[0] for record in history.records]
    assert totals == ["200", "200", "200"]
    # nothing moved, so that the epochs' own outputs say what the extra pass said
    assert [record.mapping_changes for record in history.records[1:]] == [0, 0]


def test_an_empty_class_is_named_once_and_reported() -> None:
    labels = tuple(f"digit {number}" for number in range(10))
    contract = gp.Contract(space="unit", mean=0.5, std=0.5, labels=labels)
    program = gp.Program(
        [gp.ResizePad((1, 8, 8)), gp.Additive()], align=gp.BayesianMap(10), contract=contract
    )
    task = gp.compile(graph(), program)
    kept = (TRAIN[1] != 4) & (TRAIN[1] != 7)
    with pytest.warns(UserWarning, match="label 4 'digit 4', 7 'digit 7'") as caught:
        history = fit(task, (TRAIN[0][kept], TRAIN[1][kept]), VALIDATION, epochs=2)
    assert sum("no training example" in str(item.message) for item in caught) == 1
    assert any("digit 7" in note for note in history.notes)
    assert "warning: no training example was counted" in history.records[0].mapping
    assert any("digit 4" in note for note in task.summary["notes"])


def test_more_target_than_source_classes_with_weights() -> None:
    program = gp.Program(
        [gp.ResizePad((1, 8, 8)), gp.Additive()], align=gp.BayesianMap(30), contract=UNIT
    )
    task = gp.compile(graph(), program)
    labels = torch.arange(200) % 30
    history = fit(task, (TRAIN[0], labels), epochs=1)
    assert history.records[0].mapping_changes is not None
