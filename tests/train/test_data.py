"""Data for training: every accepted form, and what is refused, with its place."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset
from torch.utils.data.distributed import DistributedSampler

import graphprog as gp
from graphprog.errors import DataError, TrainingError
from graphprog.train import evaluate, fit
from tests.support.training import UNIT, digits, framed, graph, headed, same_state

IMAGES, LABELS = digits()["train"]


class Items(Dataset[Any]):
    """Examples made one by one; the label is a Python number."""

    def __init__(self, images: torch.Tensor = IMAGES, labels: torch.Tensor = LABELS) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> Any:
        return self.images[row], int(self.labels[row])


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from zip(IMAGES, LABELS, strict=True)


FORMS = {
    "tensor data set": TensorDataset(IMAGES, LABELS),
    "subset of a subset": Subset(
        Subset(TensorDataset(IMAGES.flip(0), LABELS.flip(0)), range(199, -1, -1)), range(200)
    ),
    "items": Items(),
    "subset of items": Subset(Items(), range(200)),
    "list of pairs": list(Items()),
    "inputs as a tuple": ((IMAGES,), LABELS),
    "inputs by name": ({"images": IMAGES}, LABELS),
    "arrays": (IMAGES.double().numpy(), LABELS.int().numpy()),
    "a dict": {"labels": LABELS, "images": IMAGES},
    "dict rows": [
        {"images": image.tolist(), "label": int(label), "number": number}
        for number, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True))
    ],
}


@functools.cache
def of_tensors() -> gp.ReprogrammedModel:
    task = headed()
    fit(task, (IMAGES, LABELS), epochs=2)
    return task


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_the_same_data_give_the_same_program(form: str) -> None:
    task = headed()
    history = fit(task, FORMS[form], epochs=2)
    assert same_state(of_tensors(), task)
    assert history.examples == {"training": 200}


def test_a_loader_is_read_as_it_is() -> None:
    task = framed(gp.FrequencyMap(10))
    reference = framed(gp.FrequencyMap(10))
    loader = DataLoader(Items(), batch_size=32, shuffle=True, drop_last=True)
    history = fit(task, loader, DataLoader(Items(), batch_size=64), epochs=2)
    fit(reference, (IMAGES, LABELS), epochs=1)
    assert "from 200 predictions" in history.records[0].mapping  # though 8 of them are dropped
    name = "program.align.sources"
    assert torch.equal(task.program_state()[name], reference.program_state()[name])
    again = framed(gp.FrequencyMap(10))
    assert fit(again, loader, DataLoader(Items(), batch_size=64), epochs=2) == history


def test_a_stream_without_a_length_is_read() -> None:
    task = framed(gp.BayesianMap(10))
    history = fit(task, DataLoader(Stream(), batch_size=50), epochs=2)
    assert history.examples == {"training": None}
    assert evaluate(task, DataLoader(Stream(), batch_size=7)).count == 200


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(2, 4)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.left(left) + self.right(right)


def test_several_inputs_by_place_and_by_name() -> None:
    left, right, labels = torch.rand(30, 3), torch.rand(30, 2), torch.arange(30) % 4
    captured = gp.capture(TwoInputs(), (left[:2], right[:2]))
    states = []
    for data in (
        (left, right, labels),
        ((left, right), labels),
        ({"right": right, "left": left}, labels),
        [({"right": r, "left": a}, y) for a, r, y in zip(left, right, labels, strict=True)],
    ):
        task = gp.compile(captured, gp.Program(align=gp.LinearHead(4)))
        fit(task, data, epochs=1)
        states.append(task.program_state()["program.align.weight"])
    assert all(torch.equal(states[0], state) for state in states[1:])
    with pytest.raises(DataError, match="inputs are named left, wrong"):
        fit(task, ({"left": left, "wrong": right}, labels))


def broken_images(value: float) -> torch.Tensor:
    images = IMAGES.clone()
    images[57, 0, 3, 3] = value
    return images


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ((broken_images(float("nan")), LABELS), "training example 57: .* not finite"),
        (Items(broken_images(float("inf"))), "training example 57: .* not finite"),
        ((IMAGES * 255, LABELS), r"training example \d+: .*\[0, 255\]"),
        ((IMAGES, LABELS + 1), r"training example \d+: labels lie in .* 10 classes"),
        ((IMAGES, LABELS - 1), r"training example \d+: labels lie in \[-1"),
        ((IMAGES, LABELS.float()), "labels must be int64"),
        ((IMAGES, LABELS[:-1]), "differ in length"),
        ((IMAGES[:, :, :7], LABELS), r"the graph takes .*1,8,8"),
        ((IMAGES[:0], LABELS[:0]), "training data has no examples"),
        ((IMAGES, IMAGES, LABELS), "a batch has 2 inputs"),
        (
            (IMAGES, numpy.array(["one"] * 200)),
            "training data: a ndarray where a tensor, an array or a number is needed",
        ),
        ({"images": IMAGES}, "training data: images without labels"),
        ({"labels": LABELS}, "training data: labels without input 'images'"),
        (IMAGES, "is not a pair of inputs and labels"),
        (7, "must be tensors, a data set or a loader, not int"),
        (DataLoader(Items(), batch_size=300, drop_last=True), "yields no batches"),
        (
            DataLoader(Items(broken_images(float("nan"))), batch_size=50),
            "training batch 1, row 7: .* not finite",
        ),
    ],
)
def test_bad_data_is_refused_with_its_place(data: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        fit(headed(), data, epochs=1)


class Unsteady(Items):
    """Example 57 fails, or has another shape than the others."""

    def __init__(self, ragged: bool) -> None:
        super().__init__()
        self.ragged = ragged

    def __getitem__(self, row: int) -> Any:
        if row != 57:
            return super().__getitem__(row)
        if self.ragged:
            return self.images[row, :, :7], 3
        raise OSError("cannot open the picture")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (Unsteady(ragged=False), "training example 57: the data set raised OSError: cannot open"),
        (Subset(Unsteady(ragged=False), range(50, 90)), "training example 7: the data set raised"),
        (
            Unsteady(ragged=True),
            r"example 57 is \(\[1, 7, 8\], \[\]\), but example \d+ is \(\[1, 8,",
        ),
        (DataLoader(Unsteady(False), batch_size=50), "training batch 1: the loader raised OSError"),
        (DataLoader(Unsteady(True), batch_size=50), "training batch 1: the loader raised Runtime"),
        ([{"images": IMAGES[0]}], "example 0 is|images without labels"),
    ],
)
def test_data_that_cannot_be_read_say_which_example(data: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        fit(headed(), data, epochs=1)
    assert error.value.remedies


def test_bad_validation_data_is_named() -> None:
    with pytest.raises(DataError, match="validation example 57"):
        fit(headed(), (IMAGES, LABELS), (broken_images(float("nan")), LABELS))


def test_labels_of_an_unaligned_task_are_checked_against_its_logits() -> None:
    task = gp.compile(graph(), gp.Program([gp.ResizePad((1, 8, 8)), gp.Additive()], contract=UNIT))
    with pytest.raises(DataError, match=r"labels lie in .* 12 classes"):
        fit(task, (IMAGES, LABELS + 3))


def test_a_task_that_returns_no_logits_is_refused() -> None:
    captured = gp.capture(nn.Conv2d(1, 2, 3), (torch.rand(2, 1, 8, 8),))
    task = gp.compile(captured, gp.Program([gp.Additive()]))
    with pytest.raises(DataError, match=r"a class number for each entry of the logits") as error:
        fit(task, (torch.rand(20, 1, 8, 8), LABELS[:20]))
    assert 'at="features"' in str(error.value)
    flat = gp.capture(nn.Conv1d(1, 2, 3), (torch.rand(2, 1, 8),))
    with pytest.raises(TrainingError, match="but target logits"):
        fit(gp.compile(flat, gp.Program([gp.Additive()])), (torch.rand(20, 1, 8), LABELS[:20]))


def test_a_loader_that_is_shared_out_already_is_refused_among_processes() -> None:
    from graphprog.train.data.batches import Share
    from graphprog.train.data.datasets import open_split
    from graphprog.train.named_losses import cross_entropy
    from graphprog.train.objective import Classification

    sampler = DistributedSampler(Items(), num_replicas=2, rank=0)
    task, loader = headed(), DataLoader(Items(), sampler=sampler, batch_size=5)
    split = open_split(task, Classification(task, cross_entropy), "training", loader)
    with pytest.raises(DataError, match="gives every process its own examples"):
        next(split.batches(5, Share(0, 2)))
