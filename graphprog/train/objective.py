"""Objectives: the loss of a run, its score, and the labels that it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils import _pytree as pytree

from graphprog.alignments.label_mapping.statistical import StatisticalAlignment
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import DataError, TrainingError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.symbols import size_text
from graphprog.train.named_losses import LOSSES

Loss = Callable[[Any, Any], torch.Tensor]
Score = tuple[torch.Tensor, torch.Tensor]

IGNORED = -100
"""The label of an entry that does not count, as in PyTorch."""


@runtime_checkable
class Objective(Protocol):
    """A loss with a score and a check of its labels, such as those of :mod:`graphprog.losses`."""

    def __call__(self, outputs: Any, labels: Any) -> torch.Tensor:
        """Return the mean loss over the labels, a scalar."""

    def score(self, outputs: Any, labels: Any) -> Score | None:
        """Return the number of correct labels and of all labels, as scalars.

        None if labels are not right or wrong; a NaN if those of this batch are not.
        """

    def check(self, inputs: tuple[torch.Tensor, ...], labels: Any) -> None:
        """Check a batch; raises a DataError if it cannot be used."""


@dataclasses.dataclass(frozen=True)
class Places:
    """Where labels of a batch count, so that an output is needed there only.

    Attributes:
        output: number of the output [B, S, ...].
        positions: int64 [B, L] of each row.
        objective: the loss of outputs at these positions.
    """

    output: int
    positions: torch.Tensor
    objective: Objective


@runtime_checkable
class Placed(Protocol):
    """An objective that may need an output at some places only."""

    def places(self, labels: Any) -> Places | None:
        """Return where the labels of a batch count; None if that is nearly everywhere."""


@dataclasses.dataclass(frozen=True)
class Supervised:
    """The objective of a function of outputs and labels of any form.

    Attributes:
        task: returns the outputs.
        function: from outputs and labels to a mean loss.
        output: number of the output that the function takes; None for all, as the task returns
            them.
    """

    task: ReprogrammedModel
    function: Loss
    output: int | None = 0

    def __call__(self, outputs: Any, labels: Any) -> torch.Tensor:
        """Return the mean loss that the function computes."""
        return self.function(self.taken(outputs), labels)

    def taken(self, outputs: Any) -> Any:
        """Return what the function takes of the task's outputs."""
        return outputs if self.output is None else pytree.tree_leaves(outputs)[self.output]

    @property
    def classes(self) -> int:
        """Return the number of classes that labels may number; 0 if they do not."""
        shape = () if self.output is None else self.shape
        number = shape[1] if len(shape) == 2 else 0
        return number if isinstance(number, int) and number > 1 else 0

    def numbers(self, labels: Any) -> bool:
        """Whether labels may be class numbers, by form and dtype."""
        one = isinstance(labels, torch.Tensor) and labels.dtype == torch.int64
        return self.classes > 0 and one and labels.ndim == len(self.shape) - 1

    def score(self, outputs: Any, labels: Any) -> Score | None:
        """Return correct and all rows, if labels int64 [B] number the classes of logits [B, K]."""
        if not self.numbers(labels):
            return None
        numbers = ((labels >= 0) & (labels < self.classes)).all()
        right = (self.taken(outputs).argmax(1) == labels).sum().double()
        return torch.where(numbers, right, torch.nan), torch.tensor(len(labels))

    def histogram(self, outputs: Any, labels: Any) -> torch.Tensor | None:
        """Return how often each class is predicted, and how often it is the label: int64 [2, K].

        None if labels are not class numbers.
        """
        if not self.numbers(labels):
            return None
        wanted: torch.Tensor = labels.flatten()
        found = self.taken(outputs).argmax(1).flatten()
        counted = ((wanted >= 0) & (wanted < self.classes)).long()
        counts = counted.new_zeros(2, self.classes)
        counts[0].scatter_add_(0, found, counted)
        counts[1].scatter_add_(0, wanted.clamp(0, self.classes - 1), counted)
        return counts

    def check(self, inputs: tuple[torch.Tensor, ...], labels: Any) -> None:
        """Check the inputs; the function determines which labels it takes."""
        self.task.check(inputs)

    @property
    def shape(self) -> tuple[int | str, ...]:
        """The shape of the output; letters for axes that vary."""
        assert self.output is not None
        graph = self.task.graph
        sizes = fake_tensor(graph.output_nodes[self.output]).shape
        return tuple(size_text(size, graph.symbols) for size in sizes)


@dataclasses.dataclass(frozen=True)
class Classification(Supervised):
    """One class number per row, or per entry of a dense output such as a mask.

    The logits are [B, K] or [B, K, H, W], the labels int64 without axis 1; in dense labels, -100
    does not count.
    """

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        number = self.shape[1]
        return number if isinstance(number, int) else 0

    def score(self, outputs: Any, labels: torch.Tensor) -> Score:
        """Return the number of labels whose class has the largest logit, and of all that count."""
        found = self.taken(outputs).argmax(1)
        return (found == labels).sum(), (labels != IGNORED).sum()

    def check(self, inputs: tuple[torch.Tensor, ...], labels: Any) -> None:
        """Check inputs and labels.

        Raises:
            DataError: as :meth:`ReprogrammedModel.check`; labels of another shape or dtype.
        """
        labels = _one_tensor(labels)
        if len(self.shape) == 2:
            self.task.check(inputs, labels)
            return
        self.task.check(inputs)
        batch, classes, *sizes = self.shape
        wanted = (batch, *sizes)
        if labels.dtype != torch.int64 or not _fits(labels, wanted):
            raise DataError(
                f"labels must be int64{_text(wanted)}, a class number for each entry of the logits "
                f"{_text(self.shape)}, not {_given(labels)}",
                [
                    'align=gp.LinearHead(classes, at="features"), for one class per row',
                    "loss=..., a function of outputs and labels",
                ],
            )
        counted = labels[labels != IGNORED]
        if len(counted) and (counted.min() < 0 or counted.max() >= classes):
            raise DataError(
                f"labels lie in [{int(counted.min())}, {int(counted.max())}], but the output has "
                f"{classes} classes, numbered from 0",
                [f"use {IGNORED} for an entry without a label"],
            )


@dataclasses.dataclass(frozen=True)
class Elementwise(Supervised):
    """One number for each entry of an output: regression, or several labels per row."""

    classes = 0

    def score(self, outputs: Any, labels: torch.Tensor) -> Score | None:
        """Return None: a number is not right or wrong."""
        return None

    def check(self, inputs: tuple[torch.Tensor, ...], labels: Any) -> None:
        """Check inputs and labels.

        Raises:
            DataError: as :meth:`ReprogrammedModel.check`; labels that are not numbers, not finite,
                or of another shape than the output.
        """
        self.task.check(inputs)
        labels = _one_tensor(labels)
        wanted = self.shape
        column = len(wanted) == 2 and wanted[1] == 1 and labels.ndim == 1
        row = len(wanted) == 1 and labels.shape[1:] == (1,)
        if not (_fits(labels, wanted) or column or row) or labels.is_complex():
            raise DataError(
                f"labels must be numbers {_text(wanted)} like the output, not {_given(labels)}",
                ["align=gp.LinearHead(numbers, ...) sets how many numbers a row has"],
            )
        if labels.is_floating_point() and not labels.isfinite().all():
            raise DataError("labels are not finite", ["torch.isfinite(labels) finds the entries"])


@dataclasses.dataclass(frozen=True)
class MultiLabel(Elementwise):
    """Several labels per row, each of which applies or does not: labels in [0, 1], logits."""

    def score(self, outputs: Any, labels: torch.Tensor) -> Score:
        """Return the number of labels on the right side of one half, and of all labels."""
        logits = self.taken(outputs)
        right = (logits > 0) == (labels.view_as(logits) > 0.5)
        return right.sum(), torch.tensor(right.numel())

    def check(self, inputs: tuple[torch.Tensor, ...], labels: Any) -> None:
        """As :meth:`Elementwise.check`; the labels lie in [0, 1]."""
        super().check(inputs, labels)
        if labels.numel() and (labels.min() < 0 or labels.max() > 1):
            raise DataError(
                f"labels lie in [{float(labels.min()):g}, {float(labels.max()):g}], but "
                "binary_cross_entropy takes 0 where a label does not apply and 1 where it does",
                ['loss="cross_entropy" for class numbers', 'loss="mse" for other numbers'],
            )


_KINDS: dict[str, type[Supervised]] = {
    "cross_entropy": Classification,
    "mse": Elementwise,
    "l1": Elementwise,
    "binary_cross_entropy": MultiLabel,
}


def objective_of(task: ReprogrammedModel, loss: str | Loss) -> Objective:
    """Return the objective of a run.

    Args:
        task: the task to train.
        loss: a name of :data:`graphprog.train.named_losses.LOSSES`, an objective, or a function.
            A function takes the tensor that the task returns, or all outputs as it returns them
            if there are several.

    Raises:
        TrainingError: the task does not return what the loss takes.
    """
    if isinstance(loss, Objective):
        return loss
    if not isinstance(loss, str):
        if isinstance(task.spec.align, StatisticalAlignment):
            return Classification(task, loss)
        return Supervised(task, loss, 0 if len(task.graph.output_nodes) == 1 else None)
    kind = _KINDS[loss]
    number = _chosen_output(task)
    if number is None or (kind is Classification and not _are_logits(task, number)):
        outputs = ", ".join(task.graph.outputs)
        wanted = "target logits [batch, classes]" if kind is Classification else "one output"
        raise TrainingError(
            f"the task returns {outputs or 'nothing'}, but {wanted} are needed for loss={loss!r}",
            [
                'align=gp.LinearHead(classes, at="features")',
                "capture a model that returns only its logits",
                "use loss=gp.losses.CausalLM(task), or another loss for outputs per token",
                "use a function of all outputs and the labels as loss",
            ],
        )
    return kind(task, LOSSES[loss], number)


def _chosen_output(task: ReprogrammedModel) -> int | None:
    """Return the number of the only output, or of the one called ``logits``; floats only."""
    names = task.graph.outputs
    number = 0 if len(names) == 1 else names.index("logits") if "logits" in names else None
    if number is None or not hasattr(task.graph.output_nodes[number], "meta"):
        return None
    value = fake_tensor(task.graph.output_nodes[number])
    return number if value.is_floating_point() else None


def _are_logits(task: ReprogrammedModel, number: int) -> bool:
    """Whether an output is logits [B, K] or dense [B, K, H, W]; [B, S, V] has classes last."""
    shape = fake_tensor(task.graph.output_nodes[number]).shape
    return (len(shape) == 2 or len(shape) > 3) and isinstance(shape[1], int)


def _one_tensor(labels: Any) -> torch.Tensor:
    if not isinstance(labels, torch.Tensor):
        raise DataError(
            f"labels are a {type(labels).__name__} of several, but this loss takes one tensor",
            ["use a function of outputs and labels as loss"],
        )
    return labels


def _fits(labels: torch.Tensor, shape: tuple[int | str, ...]) -> bool:
    """Whether labels have a shape, where it is known; the batch may have any length."""
    return labels.ndim == len(shape) and all(
        not isinstance(wanted, int) or axis == 0 or wanted == size
        for axis, (wanted, size) in enumerate(zip(shape, labels.shape, strict=True))
    )


def _text(shape: tuple[int | str, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _given(labels: torch.Tensor) -> str:
    return f"{labels.dtype}{list(labels.shape)}"
