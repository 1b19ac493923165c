"""Evaluation of a task on a split of data."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from graphprog.compiler.data_checks import warn_uncounted
from graphprog.compiler.model import ReprogrammedModel
from graphprog.train.data.batches import Batch
from graphprog.train.data.datasets import open_split
from graphprog.train.data.splits import Split
from graphprog.train.loop.engine import Engine, require_task, running
from graphprog.train.loop.meter import Meter, Scores
from graphprog.train.loop.notes import collapse_note
from graphprog.train.loop.randomness import preserved, reseed
from graphprog.train.metrics import Given, Metrics
from graphprog.train.objective import Loss, Objective, Supervised, objective_of
from graphprog.train.recipe import Recipe
from graphprog.utils.html import preformatted

_SHOWN_CLASSES = 20
_COUNTED_CLASSES = 4096


@dataclass(frozen=True)
class Evaluation:
    """Loss, accuracy and confusion matrix of a task on a split.

    Attributes:
        loss: mean over the labels.
        accuracy: share of labels that are predicted correctly; NaN if labels are not right or
            wrong, such as numbers.
        count: number of labels; the number of examples, if each has one.
        confusion: int64 [K, K]; row: class of the example, column: predicted class. Empty if the
            labels are not class numbers, and for more than 4096 classes.
        labels: names of the classes, if the program's contract has them.
        metrics: the metrics that were asked for, by name.

    Example:
        >>> found = gp.evaluate(task, (images, labels))
        >>> assert 0 <= found.accuracy <= 1
        >>> int(found.confusion.sum())  # row: class of the example, column: predicted class
        4
    """

    loss: float
    accuracy: float
    count: int
    confusion: torch.Tensor = field(repr=False, compare=False)
    labels: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def class_accuracy(self) -> tuple[float | None, ...]:
        """Return the accuracy for each class; None for a class without examples."""
        right = self.confusion.diagonal().tolist()
        return tuple(
            hits / total if total else None
            for hits, total in zip(right, self.confusion.sum(1).tolist(), strict=True)
        )

    def _repr_html_(self) -> str:
        """Return the text, for notebooks."""
        return preformatted(str(self))

    def __str__(self) -> str:
        unit = "examples" if len(self.confusion) else "labels"
        accuracy = "" if math.isnan(self.accuracy) else f"accuracy {self.accuracy:.2%}  "
        lines = [f"{accuracy}loss {self.loss:.4f}  {unit} {self.count}"]
        lines += [f"{name} {value:.4f}" for name, value in self.metrics.items()]
        totals = self.confusion.sum(1).tolist()
        for number, share in list(enumerate(self.class_accuracy))[:_SHOWN_CLASSES]:
            name = self.labels[number] if self.labels else f"class {number}"
            text = "no examples" if share is None else f"{share:7.2%} of {totals[number]}"
            lines.append(f"  {name}: {text}")
        if len(totals) > _SHOWN_CLASSES:
            lines.append(f"  and {len(totals) - _SHOWN_CLASSES} more classes")
        return "\n".join(lines)


def evaluate(
    task: ReprogrammedModel,
    data: Any,
    *,
    batch_size: int = 64,
    loss: str | Loss = "cross_entropy",
    precision: str = "no",
    metrics: Given = (),
) -> Evaluation:
    """Measure loss, accuracy and other metrics of a task on held-out data.

    Runs on the device that accelerate selects, shared among its processes. Afterwards, the task is
    back on its device, in eval mode.

    Args:
        task: the task to measure.
        data: in any form that :func:`graphprog.fit` takes; a loader is used unchanged.
        batch_size: examples per forward pass.
        loss: as for :func:`graphprog.fit`.
        precision: likewise.
        metrics: likewise.

    Raises:
        DataError: the task cannot take the data.
        TrainingError: the task does not return what the loss takes, or an argument is invalid.

    Example:
        >>> found = gp.evaluate(task, (images, labels))
        >>> found.count, found.confusion.shape
        (4, torch.Size([2, 2]))
    """
    require_task(task)
    recipe = Recipe(batch_size=batch_size, loss=loss, precision=precision, metrics=metrics)
    warn_uncounted(task.spec.align.kind, task.alignment)
    with running(task, precision) as engine, preserved(engine.device):
        reseed(0)
        objective = objective_of(task, loss)
        split = open_split(task, objective, "evaluation", data)
        classes = objective.classes if isinstance(objective, Supervised) else 0
        classes = classes if classes <= _COUNTED_CLASSES else 0
        confusion = torch.zeros(classes, classes, dtype=torch.int64)
        meter, measured = Meter(), Metrics(recipe.named_metrics, objective)
        for batch, outputs in _outputs(engine, split, recipe, objective, meter, measured):
            if classes and isinstance(objective, Supervised) and objective.numbers(batch.labels):
                confusion += _confusion(objective.taken(outputs), batch, classes)
        scores, values = meter.scores(engine), measured.values(engine)
        confusion = engine.total(confusion)
        if scores.accuracy is None:
            confusion = confusion[:0, :0]
    accuracy = math.nan if scores.accuracy is None else scores.accuracy
    labels = tuple(task.spec.contract.labels)
    if note := collapse_note(scores, "evaluation", labels):
        warnings.warn(note, stacklevel=2)
    return Evaluation(scores.loss, accuracy, scores.count, confusion, labels, values)


def _confusion(logits: torch.Tensor, batch: Batch, classes: int) -> torch.Tensor:
    """Return the confusion matrix [K, K] of a batch, of labels that are class numbers."""
    wanted, found = (part[: batch.own].flatten() for part in (batch.labels, logits.argmax(1)))
    numbers = (wanted >= 0) & (wanted < classes)
    cells = (wanted * classes + found)[numbers].cpu()
    return torch.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def measure(engine: Engine, split: Split, recipe: Recipe, objective: Objective) -> Scores:
    """Measure loss, accuracy and metrics on a split, in eval mode, without gradient."""
    meter, metrics = Meter(), Metrics(recipe.named_metrics, objective)
    for _ in _outputs(engine, split, recipe, objective, meter, metrics):
        pass
    return dataclasses.replace(meter.scores(engine), metrics=metrics.values(engine))


def _outputs(
    engine: Engine,
    split: Split,
    recipe: Recipe,
    objective: Objective,
    meter: Meter,
    metrics: Metrics,
) -> Iterator[tuple[Batch, Any]]:
    """Yield batches on the device with the task's outputs; meter and metrics add them."""
    engine.alone.eval()
    for given in split.batches(recipe.batch_size, engine.share):
        if not given.own:
            continue
        batch = given.to(engine.device)
        with torch.no_grad():
            outputs, _ = engine.forward(batch, read=False)
            meter.add(objective(outputs, batch.labels), objective, outputs, batch)
            metrics.add(outputs, batch.labels)
        yield batch, outputs
