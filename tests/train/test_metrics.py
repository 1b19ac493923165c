"""Metrics against scikit-learn, and what they determine: the epoch that is kept."""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

import pytest
import torch
from sklearn import metrics as sk
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional
from torchmetrics.classification import MulticlassCohenKappa, MulticlassF1Score

import graphprog as gp
from graphprog.errors import TrainingError
from graphprog.train import EpochRecord, evaluate, fit
from graphprog.train.metrics import Metrics
from graphprog.train.monitor import Monitor
from graphprog.train.objective import objective_of

ROWS, CLASSES = 60, 4
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(ROWS, 5, generator=GENERATOR)
KINDS = torch.randint(0, 3, (ROWS,), generator=GENERATOR)  # of four classes, one without examples
MARKS = torch.rand(ROWS, CLASSES, generator=GENERATOR) > 0.6
NUMBERS = torch.randn(ROWS, CLASSES, generator=GENERATOR)


@functools.cache
def captured() -> gp.Graph:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return gp.capture(nn.Linear(5, 6), (X[:2],))


def task(outputs: int = CLASSES) -> gp.ReprogrammedModel:
    return gp.compile(captured(), gp.Program(align=gp.LinearHead(outputs)), seed=3)


@functools.cache
def logits(outputs: int = CLASSES) -> torch.Tensor:
    with torch.no_grad():
        return task(outputs)(X)


def area_of(wanted: torch.Tensor, scores: torch.Tensor) -> float:
    """The mean area of the classes that have examples for and against."""
    areas = [
        sk.roc_auc_score(wanted[:, k], scores[:, k])
        for k in range(wanted.shape[1])
        if 0 < wanted[:, k].sum() < len(wanted)
    ]
    return float(sum(areas) / len(areas))


def of_classes() -> dict[str, float]:
    predicted = logits().argmax(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "accuracy": sk.accuracy_score(KINDS, predicted),
            "balanced_accuracy": sk.balanced_accuracy_score(KINDS, predicted),
            "macro_f1": sk.f1_score(KINDS, predicted, average="macro"),
            "auroc": area_of(functional.one_hot(KINDS, CLASSES), logits().softmax(1)),
            "mean_iou": sk.jaccard_score(KINDS, predicted, average="macro"),
            "perplexity": math.exp(sk.log_loss(KINDS, logits().softmax(1), labels=range(CLASSES))),
        }


def of_marks() -> dict[str, float]:
    predicted = logits() > 0
    return {
        "accuracy": float((predicted == MARKS).float().mean()),
        "macro_f1": sk.f1_score(MARKS, predicted, average="macro"),
        "auroc": area_of(MARKS, logits()),
    }


def of_numbers() -> dict[str, float]:
    return {
        "mae": sk.mean_absolute_error(NUMBERS, logits()),
        "r2": sk.r2_score(NUMBERS, logits()),
    }


def of_one_mark() -> dict[str, float]:
    return {
        "accuracy": sk.accuracy_score(MARKS[:, 0], logits(1)[:, 0] > 0),
        "balanced_accuracy": sk.balanced_accuracy_score(MARKS[:, 0], logits(1)[:, 0] > 0),
        "auroc": sk.roc_auc_score(MARKS[:, 0], logits(1)[:, 0]),
    }


@pytest.mark.parametrize(
    ("loss", "labels", "outputs", "expected"),
    [
        ("cross_entropy", KINDS, CLASSES, of_classes),
        ("binary_cross_entropy", MARKS, CLASSES, of_marks),
        ("binary_cross_entropy", MARKS[:, 0], 1, of_one_mark),
        ("mse", NUMBERS, CLASSES, of_numbers),
    ],
)
def test_metrics_by_name_are_those_of_another_library(
    loss: str, labels: torch.Tensor, outputs: int, expected: Any
) -> None:
    wanted = expected()
    found = evaluate(task(outputs), (X, labels), loss=loss, metrics=list(wanted), batch_size=13)
    assert found.metrics == pytest.approx(wanted, rel=1e-5)
    assert all(f"{name} {value:.4f}" in str(found) for name, value in found.metrics.items())


def test_functions_and_objects_see_the_whole_split() -> None:
    def worst(predictions: torch.Tensor, labels: torch.Tensor) -> float:
        assert len(predictions) == len(labels) == ROWS
        return float(functional.cross_entropy(predictions, labels, reduction="none").max())

    kappa = MulticlassCohenKappa(CLASSES)
    found = evaluate(task(), (X, KINDS), metrics={"worst": worst, "kappa": kappa}, batch_size=13)
    assert found.metrics["worst"] == pytest.approx(worst(logits(), KINDS))
    expected = sk.cohen_kappa_score(KINDS, logits().argmax(1))
    assert found.metrics["kappa"] == pytest.approx(expected, abs=1e-6)


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 8), nn.Linear(8, 9)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(ids).cumsum(1))


def test_perplexity_of_a_language_model_leaves_inserted_tokens_out() -> None:
    ids = torch.randint(0, 9, (7, 5), generator=torch.Generator().manual_seed(1))
    axes = {"ids": {0: "batch", 1: "sequence"}}
    prompt = gp.Program([gp.Concatenative(at="tokens", length=2)])
    writer = gp.compile(gp.capture(Language(), (ids,), dynamic_axes=axes), prompt)
    loss = gp.losses.CausalLM(writer, output=writer.graph.outputs[0])
    labels = ids.clone()
    labels[0, 3:] = -100
    found = evaluate(writer, (ids, labels), loss=loss, metrics="perplexity", batch_size=3)
    with torch.no_grad():
        read = writer(ids)[:, 1:-1]  # the last prompt entry foretells the first token
    expected = functional.cross_entropy(read.flatten(0, 1), labels.flatten()).exp()
    assert found.metrics["perplexity"] == pytest.approx(float(expected), rel=1e-4)


def test_dense_metrics_count_entries() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images, masks = torch.rand(6, 1, 4, 5), torch.randint(0, 3, (6, 4, 5))
        model = nn.Conv2d(1, 3, 3, padding=1).eval()
    masks[:, 0] = -100
    dense = gp.compile(gp.capture(model, (images[:2],)), gp.Program([gp.Additive()]))
    found = evaluate(dense, (images, masks), metrics=["mean_iou"], batch_size=4)
    with torch.no_grad():
        predicted = model(images).argmax(1)
    kept = masks >= 0
    expected = sk.jaccard_score(masks[kept], predicted[kept], average="macro")
    assert found.metrics["mean_iou"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("metrics", "labels", "loss", "said"),
    [
        ("f1", KINDS, "cross_entropy", "metrics: 'f1' is not a metric"),
        (lambda p, w: 0.0, KINDS, "cross_entropy", "a lambda has no name"),
        (["auroc", "auroc"], KINDS, "cross_entropy", "two are called 'auroc'"),
        ("mae", KINDS, "cross_entropy", "metric 'mae' is not for class numbers of 4 classes"),
        ("auroc", NUMBERS, "mse", "needs labels that are 0 or 1"),
        ("auroc", KINDS * 0, "cross_entropy", "metric 'auroc' is nan on this split"),
        (
            {"own": MulticlassF1Score(CLASSES, average=None)},
            KINDS,
            "cross_entropy",
            "metric 'own' has 4 values",
        ),
        ({"own": lambda p, w: p @ w}, KINDS, "cross_entropy", "metric 'own' fails"),
    ],
)
def test_metrics_that_cannot_be_computed_are_refused(
    metrics: Any, labels: torch.Tensor, loss: str, said: str
) -> None:
    with pytest.raises(TrainingError, match=said):
        evaluate(task(), (X, labels), loss=loss, metrics=metrics)


def test_a_library_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchmetrics", None)
    with pytest.raises(TrainingError, match="torchmetrics, which cannot be imported"):
        evaluate(task(), (X, KINDS), metrics="accuracy")


def test_what_is_monitored_chooses_the_epoch() -> None:
    def drifting(predictions: torch.Tensor, labels: torch.Tensor) -> float:
        return float(predictions[:, 0].mean())

    data, settings = ((X, KINDS), (X, KINDS)), {"epochs": 4, "lr": 0.5}
    for monitor, sign in (("drifting", 1), ("-drifting", -1)):
        model = task()
        history = fit(model, *data, metrics=[drifting], monitor=monitor, **settings)  # type: ignore[arg-type]
        drifts = [sign * record.metrics["drifting"] for record in history.records]
        assert drifts[history.best_epoch - 1] == max(drifts)
        with torch.no_grad():
            held = sign * drifting(model(X), KINDS)
        assert held == pytest.approx(max(drifts), rel=1e-5)
    history = fit(task(), *data, monitor="loss", metrics="macro_f1", **settings)  # type: ignore[arg-type]
    losses = [record.validation_loss or 0 for record in history.records]
    assert losses[history.best_epoch - 1] == min(losses)
    assert "macro_f1" in str(history)
    assert history.summary()["metrics"] == dict(history.best.metrics)
    assert history.settings["metrics"] == {"macro_f1": "macro_f1"}


@pytest.mark.parametrize(
    ("monitor", "metrics", "better"),
    [
        ("loss", {}, "low"),
        ("accuracy", {}, "high"),
        ("perplexity", {"perplexity": "perplexity"}, "low"),
        ("own", {"own": max}, "high"),
        ("-own", {"own": max}, "low"),
        ("kappa", {"kappa": MulticlassCohenKappa(3)}, "high"),
    ],
)
def test_it_is_known_which_value_is_better(monitor: str, metrics: Any, better: str) -> None:
    chosen = Monitor.of(monitor, metrics)

    def record(value: float) -> EpochRecord:
        values = dict.fromkeys(metrics, value)
        return EpochRecord(1, 1.0, 0.5, value, value, 0.1, 1.0, metrics=values)

    assert (chosen.merit(record(2.0)) > chosen.merit(record(1.0))) == (better == "high")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"monitor": "auroc"}, "monitor must be one of accuracy, loss, not 'auroc'"),
        ({"metrics": "auroc"}, "metrics needs a validation split"),
        ({"monitor": "loss"}, "monitor needs a validation split"),
        ({"callbacks": print}, "callbacks must be functions"),
        ({"warmup": 1.0}, "warmup must be a part of the run below 1"),
        ({"class_weight": "even"}, "class_weight must be 'balanced' or a number for each"),
        ({"class_weight": [1.0, 2.0]}, "class_weight has 2 weights, but there are 4 classes"),
        ({"class_weight": "balanced", "loss": functional.cross_entropy}, "no other loss"),
    ],
)
def test_bad_options_are_refused(options: Any, said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        fit(task(), (X, KINDS), **options)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_balanced_weights_are_those_of_another_library(accumulate: int) -> None:
    kinds = (X[:, 0] > 0.5).long() + 2 * (X[:, 1] > 1).long()
    kinds[kinds == 2] = 0
    present = kinds.unique().numpy()
    weights = torch.zeros(CLASSES)
    balanced = compute_class_weight("balanced", classes=present, y=kinds.numpy())
    weights[present] = torch.tensor(balanced, dtype=torch.float32)
    losses = functional.cross_entropy(logits(), kinds, reduction="none")
    expected = float((losses * weights[kinds]).sum() / weights[kinds].sum())
    history = fit(
        task(),
        (X, kinds),
        (X, kinds),
        epochs=1,
        lr=0.0,
        batch_size=ROWS // accumulate,
        accumulate=accumulate,
        class_weight="balanced",
    )
    assert history.best.train_loss == pytest.approx(expected, rel=1e-5)
    assert history.best.validation_loss == pytest.approx(float(losses.mean()), rel=1e-5)


def test_callbacks_see_every_epoch_and_may_end_the_run() -> None:
    seen: list[int] = []

    def enough(model: gp.ReprogrammedModel, record: EpochRecord) -> bool:
        assert model.program_state()
        seen.append(record.epoch)
        return record.epoch == 2

    history = fit(task(), (X, KINDS), epochs=9, callbacks=[enough])
    assert seen == [1, 2]
    assert history.stopped == "the callback enough ended the run"


def test_a_prediction_of_one_class_is_told() -> None:
    kinds = torch.zeros(ROWS, dtype=torch.int64)
    kinds[:3] = 2
    model = gp.compile(
        captured(),
        gp.Program(align=gp.LinearHead(3), contract=gp.Contract(labels=("no", "maybe", "yes"))),
    )
    weight, bias = torch.zeros(3, 6), torch.tensor([1.0, 0.0, 0.0])
    model.load_program_state({"program.align.weight": weight, "program.align.bias": bias})
    with pytest.warns(UserWarning, match=r"each of the 60 predictions on the validation data is"):
        history = fit(model, (X, kinds), (X, kinds), epochs=1, lr=0.0)
    assert any("class 0 'no', but the labels have 2 classes" in note for note in history.notes)
    with pytest.warns(UserWarning, match="on the evaluation data"):
        evaluate(model, (X, kinds))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(model, (X, kinds * 0))  # all labels are that class


def test_a_source_with_too_few_classes_is_told() -> None:
    kinds = torch.arange(ROWS) % 9
    for align in (gp.BayesianMap(9), gp.LinearHead(9)):
        model = gp.compile(captured(), gp.Program([gp.Additive(at="input:input")], align=align))
        with pytest.warns(UserWarning, match="reads 6 source classes for 9 target classes"):
            history = fit(model, (X, kinds), epochs=1)
        assert any("gp.LinearHead(9, at='features')" in note for note in history.notes)


def test_metrics_of_a_batch_without_metrics_cost_nothing() -> None:
    Metrics({}, objective_of(task(), "mse")).add(None, None)
