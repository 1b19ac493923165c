"""Weights of classes in the loss, given or from the counts of the training labels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch.nn import functional

from graphprog.errors import TrainingError
from graphprog.train.data.splits import Split
from graphprog.train.loop.engine import Engine
from graphprog.train.objective import IGNORED, Classification, Objective

ClassWeight = str | Sequence[float]


@dataclasses.dataclass(frozen=True)
class WeightedCrossEntropy:
    """Cross-entropy of logits [B, K, ...], each label weighted by its class.

    It is the mean over the labels, not over their weights, so that a step over several batches
    equals one over a larger batch.

    Attributes:
        weights: float32 [K].
    """

    weights: torch.Tensor

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the weighted mean."""
        losses = functional.cross_entropy(logits.float(), labels, reduction="none")
        counted = (labels != IGNORED).float()
        weights = self.weights.to(logits.device)[labels.clamp_min(0)] * counted
        return (losses * weights).sum() / counted.sum().clamp_min(1)


def weighted(
    objective: Objective, weight: ClassWeight, loss: object, split: Split, engine: Engine
) -> Classification:
    """Return an objective whose loss weights the classes.

    Args:
        objective: the objective without weights.
        weight: a weight for each class; or ``balanced``, N / (C * n_k) for a class with n_k of the
            N training labels, C classes having any.
        loss: loss of the run, for messages.
        split: the training data.
        engine: sums over the processes.

    Raises:
        TrainingError: the loss is not ``cross_entropy``, or the weights do not fit the classes.
    """
    if not isinstance(objective, Classification) or loss != "cross_entropy":
        raise TrainingError(
            'class_weight weights loss="cross_entropy" and no other loss',
            ["put the weights into your own function of outputs and labels"],
        )
    if isinstance(weight, str):
        weights = _balanced(_counts(objective.classes, split, engine))
    else:
        weights = torch.tensor(list(weight), dtype=torch.float32)
        if len(weights) != objective.classes:
            raise TrainingError(
                f"class_weight has {len(weights)} weights, but there are {objective.classes} "
                "classes",
                ['class_weight="balanced"'],
            )
    return dataclasses.replace(objective, function=WeightedCrossEntropy(weights.to(engine.device)))


def check_class_weight(weight: ClassWeight | None) -> None:
    """Check the form of an argument.

    Raises:
        TrainingError: it is neither ``balanced`` nor positive numbers.
    """
    if weight is None or weight == "balanced":
        return
    numbers = not isinstance(weight, str) and isinstance(weight, Sequence)
    if not numbers or not all(
        isinstance(item, int | float) and math.isfinite(item) and item >= 0 for item in weight
    ):
        raise TrainingError(
            f"class_weight must be 'balanced' or a number for each class, not {weight!r:.80}"
        )


def _counts(classes: int, split: Split, engine: Engine) -> torch.Tensor:
    counts = torch.zeros(classes, dtype=torch.float64)
    for labels in split.labels(engine.share):
        counted = labels[labels != IGNORED].cpu()
        counts += torch.bincount(counted, minlength=classes)
    return engine.total(counts)


def _balanced(counts: torch.Tensor) -> torch.Tensor:
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts.clamp_min(1))
    return torch.where(present, weights, 0.0).float()
