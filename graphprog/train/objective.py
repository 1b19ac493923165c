"""What a run minimizes, how it is scored, and which labels it takes."""

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
    """A loss that knows its own labels; those of :mod:`graphprog.losses` are such."""

    def __call__(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """Outputs of the task and labels to a scalar, the mean over the labels."""

    def score(self, outputs: Any, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """How many labels are predicted right, and of how many; numbers without axes."""

    def check(self, inputs: tuple[torch.Tensor, ...], labels: torch.Tensor) -> None:
        """Raise a DataError for a batch that cannot be used."""


@dataclasses.dataclass(frozen=True)
class Classification:
    """One class number a row: the objective of any plain function of logits and labels.

    Attributes:
        task: returns logits [B, K].
        function: logits [B, K] and labels int64 [B] to a mean loss.
    """

    task: ReprogrammedModel
    function: Loss

    def __call__(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """What the function says."""
        return self.function(outputs, labels)

    def score(
        self, outputs: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows whose largest logit is their class's, and rows."""
        return (outputs.argmax(1) == labels).sum(), torch.tensor(len(labels))

    def check(self, inputs: tuple[torch.Tensor, ...], labels: torch.Tensor) -> None:
        """As :meth:`ReprogrammedModel.check`."""
        self.task.check(inputs, labels)


def objective_of(task: ReprogrammedModel, loss: Loss) -> Objective:
    """The objective of a run.

    Raises:
        TrainingError: the loss is a plain function, and the task returns no logits [B, K].
    """
    if isinstance(loss, Objective):
        return loss
    if class_count(task.graph) is None:
        outputs = ", ".join(task.graph.outputs)
        raise TrainingError(
            f"the task returns {outputs or 'nothing'}, where target logits [batch, classes] "
            "are needed",
            [
                'align=gp.LinearHead(classes, at="features")',
                "capture the model's logits alone",
                "loss=gp.losses.CausalLM(task), or another for outputs by token",
            ],
        )
    return Classification(task, loss)
