"""What each named metric is for class numbers, for several labels per row, and for numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from graphprog.errors import TrainingError
from graphprog.train.named_losses import like
from graphprog.train.objective import IGNORED

NAMES = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "auroc",
    "mean_iou",
    "mae",
    "r2",
    "perplexity",
)
SMALLER_IS_BETTER = ("loss", "mae", "perplexity")

Tensors = tuple[torch.Tensor, torch.Tensor]


class Parts:
    """Metrics of torchmetrics on prepared predictions and labels, and what is made of them.

    Args:
        prepare: from predictions and labels of a batch to what the metrics take.
        metrics: objects of torchmetrics.
        combine: from their values to one number.
    """

    def __init__(
        self,
        prepare: Callable[[torch.Tensor, torch.Tensor], Tensors],
        metrics: Sequence[Any],
        combine: Callable[..., Any] = lambda value: value,
    ) -> None:
        self.prepare, self.metrics, self.combine = prepare, metrics, combine

    def update(self, predictions: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch."""
        given = self.prepare(predictions.float(), labels)
        if len(given[0]):
            for metric in self.metrics:
                metric.update(*given)

    def value(self) -> Any:
        """Return the number, over all processes."""
        return self.combine(*(metric.compute() for metric in self.metrics))


def made_by_name(name: str, predictions: torch.Tensor, labels: torch.Tensor) -> Parts:
    """Return a named metric for predictions and labels of this form.

    Class numbers are int64 labels of the shape of the predictions without axis 1, the classes;
    several labels per row are 0 or 1 and have the shape of the predictions, as numbers have.
    Predictions for them are logits.

    Raises:
        TrainingError: the metric is not for labels of this form, or torchmetrics cannot be
            imported.
    """
    shape = predictions.shape
    column = (shape[1:] == (1,) and labels.ndim == 1) or labels.shape == (*shape, 1)
    if labels.dtype == torch.int64 and len(shape) > 1 and labels.shape == shape[:1] + shape[2:]:
        makers = _of_classes(shape[1]) if shape[1] > 1 else {**_of_numbers(), **_of_marks(1)}
        form = f"class numbers of {shape[1]} classes"
    elif labels.shape == shape or column:
        width = shape[1] if len(shape) == 2 else 1
        makers = {**_of_numbers(), **_of_marks(width)}
        form = "numbers of the shape of the outputs"
    else:
        makers, form = {}, f"labels {list(labels.shape)} for outputs {list(shape)}"
    if name not in makers:
        raise TrainingError(
            f"metric {name!r} is not for {form}",
            [f"one of {', '.join(makers)}"] if makers else ["a function of outputs and labels"],
        )
    made = makers[name]()
    for metric in made.metrics:
        metric.to(predictions.device)
    return made


def _library() -> Any:
    """Return the module of torchmetrics for classification.

    Raises:
        TrainingError: it cannot be imported.
    """
    try:
        import torchmetrics
        from torchmetrics import classification, text

        _ = text, torchmetrics
    except Exception as error:
        raise TrainingError(
            f"metrics by name need torchmetrics, which cannot be imported: "
            f"{type(error).__name__}: {str(error).strip():.200}",
            ["pip install torchmetrics", "a function of predictions and labels as metric"],
        ) from error
    return classification


def _of_classes(classes: int) -> dict[str, Callable[[], Parts]]:
    """Metrics of class numbers; a class that has no examples does not count in a mean."""

    def flat(predictions: torch.Tensor, labels: torch.Tensor) -> Tensors:
        rows = predictions.movedim(1, -1).reshape(-1, classes)
        labels = labels.flatten()
        counted = labels != IGNORED
        return rows[counted], labels[counted]

    def likely(predictions: torch.Tensor, labels: torch.Tensor) -> Tensors:
        rows, labels = flat(predictions, labels)
        return rows.softmax(1), labels

    def sequence(predictions: torch.Tensor, labels: torch.Tensor) -> Tensors:
        rows, labels = flat(predictions, labels)
        return rows[None], labels[None]

    def of(name: str, prepare: Any = flat, **options: Any) -> Callable[[], Parts]:
        return lambda: Parts(prepare, [getattr(_library(), name)(classes, **options)])

    def with_support(name: str, combine: Any, prepare: Any = flat) -> Callable[[], Parts]:
        def make() -> Parts:
            library = _library()
            scores = library.MulticlassStatScores(classes, average=None)
            other = getattr(library, name)(classes, average="none")
            return Parts(prepare, [other, scores], combine)

        return make

    def perplexity() -> Parts:
        _library()
        from torchmetrics.text import Perplexity

        return Parts(sequence, [Perplexity()])

    return {
        "accuracy": of("MulticlassAccuracy", average="micro"),
        "balanced_accuracy": with_support("MulticlassRecall", _mean_of_supported),
        "macro_f1": of("MulticlassF1Score", average="macro"),
        "auroc": with_support("MulticlassAUROC", _mean_of_contrasted, likely),
        "mean_iou": of("MulticlassJaccardIndex", average="macro"),
        "perplexity": perplexity,
    }


def _of_marks(width: int) -> dict[str, Callable[[], Parts]]:
    """Metrics of labels that apply or do not, ``width`` of them per row."""
    kind = "Binary" if width == 1 else "Multilabel"
    sizes = () if width == 1 else (width,)

    def prepare(predictions: torch.Tensor, labels: torch.Tensor) -> Tensors:
        labels = like(labels, predictions)
        if not ((labels == 0) | (labels == 1)).all():
            raise TrainingError(
                "this metric needs labels that are 0 or 1, or int64 class numbers",
                ['metrics=["mae", "r2"] for numbers'],
            )
        shape = (-1, width) if width > 1 else (-1,)
        return predictions.sigmoid().reshape(shape), labels.long().reshape(shape)

    def of(name: str, combine: Any = None, **options: Any) -> Callable[[], Parts]:
        def make() -> Parts:
            library = _library()
            found = [getattr(library, kind + name)(*sizes, **(options if sizes else {}))]
            if combine is None:
                return Parts(prepare, found)
            scores = getattr(library, f"{kind}StatScores")
            found.append(scores(*sizes, **({"average": None} if sizes else {})))
            return Parts(prepare, found, combine)

        return make

    found = {
        "accuracy": of("Accuracy", average="micro"),
        "macro_f1": of("F1Score", average="macro"),
        "auroc": of("AUROC", _mean_of_contrasted, average="none"),
    }
    if width > 1:
        return found
    return {
        **found,
        "balanced_accuracy": lambda: Parts(prepare, [_library().BinaryStatScores()], _balanced),
    }


def _of_numbers() -> dict[str, Callable[[], Parts]]:
    def prepare(predictions: torch.Tensor, labels: torch.Tensor) -> Tensors:
        labels = like(labels, predictions)
        if predictions.ndim != 2 or predictions.shape[1] == 1:
            return predictions.flatten(), labels.flatten()
        return predictions, labels

    def of(name: str) -> Callable[[], Parts]:
        def make() -> Parts:
            _library()
            import torchmetrics

            return Parts(prepare, [getattr(torchmetrics, name)()])

        return make

    return {"mae": of("MeanAbsoluteError"), "r2": of("R2Score")}


def _mean_of_supported(recall: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    return recall[scores[:, 4] > 0].mean()


def _mean_of_contrasted(areas: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Return the mean over the classes that have examples for them and against them."""
    support, total = scores[..., 4], scores[..., :4].sum(-1)
    return areas[(support > 0) & (support < total)].mean()


def _balanced(scores: torch.Tensor) -> torch.Tensor:
    right, wrong, rejected, _, support = scores.double().unbind()
    return (right / support + rejected / (rejected + wrong)) / 2
