"""Objectives: the loss of a run, its score, and the labels that it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch

from graphprog.compiler.data_checks import class_count
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import TrainingError

Loss = Callable[[Any, torch.Tensor], torch.Tensor]


@runtime_checkable
class Objective(Protocol):
    """A loss with a score and a check of its labels, such as those of :mod:`graphprog.losses`."""

    def __call__(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean loss over the labels, a scalar."""

    def score(self, outputs: Any, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the number of correct labels and of all labels, as scalars."""

    def check(self, inputs: tuple[torch.Tensor, ...], labels: torch.Tensor) -> None:
        """Check a batch; raises a DataError if it cannot be used."""


@dataclasses.dataclass(frozen=True)
class Classification:
    """One class number per row: the objective for a function of logits and labels.

    Attributes:
        task: returns logits [B, K].
        function: from logits [B, K] and labels int64 [B] to a mean loss.
    """

    task: ReprogrammedModel
    function: Loss

    def __call__(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean loss that the function computes."""
        return self.function(outputs, labels)

    def score(
        self, outputs: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the number of rows whose class has the largest logit, and of all rows."""
        return (outputs.argmax(1) == labels).sum(), torch.tensor(len(labels))

    def check(self, inputs: tuple[torch.Tensor, ...], labels: torch.Tensor) -> None:
        """As :meth:`ReprogrammedModel.check`."""
        self.task.check(inputs, labels)


def objective_of(task: ReprogrammedModel, loss: Loss) -> Objective:
    """Return the objective of a run.

    Raises:
        TrainingError: the loss is a plain function, but the task does not return logits [B, K].
    """
    if isinstance(loss, Objective):
        return loss
    if class_count(task.graph) is None:
        outputs = ", ".join(task.graph.outputs)
        raise TrainingError(
            f"the task returns {outputs or 'nothing'}, but target logits [batch, classes] "
            "are needed",
            [
                'align=gp.LinearHead(classes, at="features")',
                "capture a model that returns only its logits",
                "use loss=gp.losses.CausalLM(task), or another loss for outputs per token",
            ],
        )
    return Classification(task, loss)
