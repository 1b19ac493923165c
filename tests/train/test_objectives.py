"""Losses and labels of every form, against plain loops over the same model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers.modeling_outputs import SequenceClassifierOutput

import graphprog as gp
from graphprog.errors import DataError, TrainingError
from graphprog.train import evaluate, fit

ROWS = 24
X = torch.rand(ROWS, 4, generator=torch.Generator().manual_seed(0))
NUMBERS = X.sum(1)
MARKS = torch.stack([X[:, 0] > 0.5, X[:, 1] > 0.5, X.sum(1) > 2], 1)


def source() -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Linear(4, 5)


@functools.cache
def graph() -> gp.Graph:
    return gp.capture(source(), (X[:2],))


def with_head(outputs: int) -> gp.ReprogrammedModel:
    return gp.compile(graph(), gp.Program(align=gp.LinearHead(outputs)))


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.2)


def trained_alone(outputs: int, loss: Callable[[torch.Tensor], torch.Tensor]) -> nn.Linear:
    """The head, trained by a loop over the whole data."""
    head = nn.Linear(5, outputs)
    state = with_head(outputs).program_state()
    head.load_state_dict({n.removeprefix("program.align."): v for n, v in state.items()})
    optimizer = sgd(list(head.parameters()))
    for _ in range(3):
        optimizer.zero_grad()
        loss(head(source()(X))).backward()
        optimizer.step()
    return head


CASES: dict[str, tuple[int, Any, Any, Callable[[torch.Tensor], torch.Tensor]]] = {
    "regression": (1, NUMBERS, "mse", lambda y: (y[:, 0] - NUMBERS).square().mean()),
    "regression of several": (4, X.double().numpy(), "mse", lambda y: (y - X).square().mean()),
    "absolute": (1, NUMBERS[:, None], "l1", lambda y: (y - NUMBERS[:, None]).abs().mean()),
    "of integers": (1, NUMBERS.long(), "mse", lambda y: (y[:, 0] - NUMBERS.long()).square().mean()),
    "several labels": (
        3,
        MARKS,
        "binary_cross_entropy",
        lambda y: functional.binary_cross_entropy_with_logits(y, MARKS.float()),
    ),
    "a function": (
        1,
        NUMBERS[:, None],
        nn.HuberLoss(),
        lambda y: functional.huber_loss(y, NUMBERS[:, None]),
    ),
    "two labels": (
        2,
        {"sum": NUMBERS, "first": X[:, 0]},
        lambda y, of: (y - torch.stack([of["sum"], of["first"]], 1)).square().mean(),
        lambda y: (y - torch.stack([NUMBERS, X[:, 0]], 1)).square().mean(),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_training_is_that_of_a_plain_loop(case: str) -> None:
    outputs, labels, loss, alone = CASES[case]
    task, expected = with_head(outputs), trained_alone(outputs, alone)
    history = fit(
        task, (X, labels), (X, labels), epochs=3, batch_size=ROWS, loss=loss, optimizer=sgd
    )
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(task.program_state()[f"program.align.{name}"], value)
    found = evaluate(task, (X, labels), loss=loss, batch_size=7)
    with torch.no_grad():
        assert found.loss == pytest.approx(float(alone(expected(source()(X)))), rel=1e-4)
    assert history.best_epoch == 3  # of the lowest loss
    if case != "several labels":
        assert history.best.train_accuracy is history.best.validation_accuracy is None
        assert found.accuracy != found.accuracy
        assert "accuracy" not in str(found)


def test_several_labels_per_row_are_right_one_by_one() -> None:
    task = with_head(3)
    found = evaluate(task, (X, MARKS), loss="binary_cross_entropy", batch_size=10)
    with torch.no_grad():
        right = (task(X).sigmoid() > 0.5) == MARKS
    assert found.accuracy == pytest.approx(float(right.float().mean()))
    assert found.count == 3 * ROWS


def test_a_history_without_accuracy_prints_and_plots() -> None:
    history = fit(with_head(1), (X, NUMBERS), epochs=2, loss="mse", progress=True)
    assert str(history).count(" - ") == 2 * 3
    (loss,) = history.plot().axes
    assert loss.get_ylabel() == "loss"
    assert "train_accuracy" in history.summary()


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.conv(image)


def test_dense_masks_train_and_are_scored_by_entry() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images, masks = torch.rand(8, 1, 6, 5), torch.randint(0, 3, (8, 6, 5))
        masks[:, 0] = -100
        model = Dense().eval()
    task = gp.compile(gp.capture(model, (images[:2],)), gp.Program([gp.Additive()]))
    before = evaluate(task, (images, masks), batch_size=8)
    with torch.no_grad():
        logits = model(images)
    assert before.loss == pytest.approx(float(functional.cross_entropy(logits, masks)), rel=1e-5)
    right = (logits.argmax(1) == masks)[masks >= 0]
    assert before.accuracy == pytest.approx(float(right.float().mean()))
    assert before.count == int(before.confusion.sum()) == 8 * 5 * 5
    fit(task, (images, masks.numpy()), epochs=3, lr=0.1)
    assert evaluate(task, (images, masks)).loss < before.loss
    with pytest.raises(DataError, match=r"labels lie in \[0, 3\], but the output has 3 classes"):
        fit(task, (images, masks.clamp_min(0) + (masks == 2)))
    with pytest.raises(DataError, match=r"must be int64\[B, 6, 5\]"):
        fit(task, (images, masks[:, :5]))


class Two(nn.Module):
    """Classes and a place, as of a detector."""

    def __init__(self) -> None:
        super().__init__()
        self.classes, self.place = nn.Linear(4, 3), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"scores": self.classes(x), "place": self.place(x)}


def test_a_function_gets_several_outputs_as_they_are() -> None:
    task = gp.compile(gp.capture(Two(), (X[:2],)), gp.Program([gp.Additive(at="input:x")]))
    kinds, places = torch.arange(ROWS) % 3, X[:, :2]

    def both(outputs: dict[str, torch.Tensor], labels: dict[str, torch.Tensor]) -> torch.Tensor:
        named = functional.cross_entropy(outputs["scores"], labels["kind"])
        return named + functional.mse_loss(outputs["place"], labels["place"])

    rows = [
        {"x": x, "kind": int(kind), "place": place}
        for x, kind, place in zip(X, kinds, places, strict=True)
    ]
    history = fit(task, rows, DataLoader(rows, batch_size=10), loss=both, epochs=3, lr=0.05)
    losses = [record.validation_loss or 0 for record in history.records]
    assert losses == sorted(losses, reverse=True)
    with torch.no_grad():
        wanted = both(task(X), {"kind": kinds, "place": places})
    assert losses[-1] == pytest.approx(float(wanted), rel=1e-5)
    with pytest.raises(TrainingError, match="the task returns scores, place, but target logits"):
        fit(task, (X, kinds))


class Wrapped(nn.Module):
    """A model whose head of its own is in a dataclass, as those of a library."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(logits=self.head(x))


@pytest.mark.parametrize("loss", ["cross_entropy", functional.cross_entropy])
def test_the_head_in_a_dataclass_trains(loss: Any) -> None:
    task = gp.compile(gp.capture(Wrapped(), (X[:2],)), gp.Program([gp.Additive(at="input:x")]))
    labels = (X[:, 0] * 2.99).long()
    before = evaluate(task, (X, labels), loss=loss)
    fit(task, (X, labels), epochs=5, lr=0.1, loss=loss)
    after = evaluate(task, (X, labels), loss=loss)
    assert after.loss < before.loss
    assert int(after.confusion.sum()) == ROWS
    assert isinstance(task(X), SequenceClassifierOutput)


def test_a_function_scores_only_class_numbers() -> None:
    """Two numbers per row, such as the mean and the variance of a count."""
    counts = torch.arange(ROWS)

    def gaussian(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.gaussian_nll_loss(outputs[:, 0], labels.float(), outputs[:, 1].exp())

    history = fit(with_head(2), (X, counts), (X, counts % 2), loss=gaussian, epochs=1)
    assert history.best.train_accuracy is None
    assert history.best.validation_accuracy is not None
    assert evaluate(with_head(2), (X, counts), loss=gaussian).confusion.numel() == 0


@pytest.mark.parametrize(
    ("loss", "labels", "said"),
    [
        ("mse", X[:, :2], r"labels must be numbers \[B, 3\] like the output"),
        ("mse", X[:, :3] / 0 * 0, "training example 0: labels are not finite"),
        (
            "binary_cross_entropy",
            X[:, :3] * 3,
            r"labels lie in \[.*\], but binary_cross_entropy",
        ),
        ("binary_cross_entropy", X[:, 0], r"labels must be numbers \[B, 3\]"),
        ("cross_entropy", MARKS.float(), "labels must be int64"),
        ("cross_entropy", {"a": NUMBERS, "b": NUMBERS}, "labels are a dict of several"),
        (
            functional.cross_entropy,
            MARKS.float()[:, :2],
            r"fails on outputs f32\[24, 3\] and labels",
        ),
    ],
)
def test_labels_that_a_loss_does_not_take_are_refused(loss: Any, labels: Any, said: str) -> None:
    with pytest.raises((DataError, TrainingError), match=said):
        fit(with_head(3), (X, labels), loss=loss)
