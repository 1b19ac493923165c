"""One epoch of training with PyTorch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from graphprog.ir.memory.peak import PeakMemory
from graphprog.train.data.batches import Batch
from graphprog.train.data.splits import Split
from graphprog.train.loop.engine import Engine
from graphprog.train.loop.mapping import Mapping
from graphprog.train.loop.meter import DivergenceError, Meter, Scores
from graphprog.train.loop.randomness import derived_seed
from graphprog.train.objective import Objective, Placed
from graphprog.train.progress import Bar
from graphprog.train.recipe import Recipe

_STEPS_BETWEEN_CHECKS = 32


@dataclass
class Trainer:
    """The parts of a run that a training step needs.

    Attributes:
        engine: runs the task.
        recipe: the hyper-parameters.
        objective: what is minimized.
        split: the training data.
        parameters: trained parameters by name; the optimizer holds the same objects.
        optimizer: None if nothing is trained.
        mapping: the statistical alignment, if there is one.
        bar: shows progress.
    """

    engine: Engine
    recipe: Recipe
    objective: Objective
    split: Split
    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer | None
    mapping: Mapping | None
    bar: Bar

    on_processor: ClassVar[bool] = False
    """Whether the steps run on the CPU even if there is a GPU."""

    @classmethod
    def require(cls, recipe: Recipe) -> None:
        """Check that these steps support a recipe.

        Raises:
            TrainingError: they do not; names the option.
        """

    def __post_init__(self) -> None:
        self.base_lrs: list[float] = []
        self.peak: int | None = None  # bytes of the first step, where memory is to be saved
        if self.optimizer is not None:
            self.base_lrs = [group["lr"] for group in self.optimizer.param_groups]
            scaled = self.engine.accelerator.scaler is not None
            prepared = self.engine.accelerator.prepare_optimizer(self.optimizer)
            # accelerate's own step is slower than Adam's; only scaling and XLA need it
            needed = scaled or self.engine.device.type == "xla"
            self._step = prepared.step if needed else self.optimizer.step

    def groups(self) -> int | None:
        """Return the number of optimizer steps per epoch; None if unknown before reading."""
        steps = self.split.steps(self.recipe.batch_size)
        return None if steps is None else -(-steps // self.recipe.accumulate)

    def train(self, epoch: int) -> tuple[Scores, torch.Tensor | None]:
        """Train for one epoch, counted from 0.

        Returns:
            Scores of the epoch, and counts of its outputs summed over the processes, if the
            mapping collects them.

        Raises:
            DivergenceError: a loss or a parameter is not finite.
        """
        meter, accumulated = Meter(), None
        if self.mapping is not None and self.mapping.collects_in(epoch):
            accumulated = self.mapping.empty_counts()
        self.engine.step.train()
        steps = self.groups()
        for number, group in enumerate(self._groups(epoch)):
            done = (number / steps if steps else 0.0) + epoch
            self.set_lr(done)
            if self.recipe.memory == "low" and self.peak is None:
                with self._measuring():
                    loss = self._take_step(group, meter, accumulated)
            else:
                loss = self._take_step(group, meter, accumulated)
            if self._checks_after(number):
                self._check(meter, epoch)
            self.bar.step(loss)
        self._check(meter, epoch)
        for name, parameter in self.parameters.items():
            if not parameter.isfinite().all():
                raise DivergenceError(f"program.{name} is not finite after epoch {epoch + 1}")
        scores = meter.scores(self.engine)
        return scores, None if accumulated is None else self.engine.total(accumulated)

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        """Measure the largest number of bytes that the values of a step take at once."""
        device = self.engine.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            yield
            self.peak = torch.cuda.max_memory_allocated(device) - before
        else:
            with PeakMemory() as memory:
                yield
            self.peak = memory.peak

    def set_lr(self, done: float) -> None:
        """Set the learning rates for the step after the given number of epochs."""
        if self.optimizer is not None:
            epochs = self.recipe.epochs
            factor = self.recipe.lr_factor(done / epochs, 1 / (epochs * (self.groups() or 1)))
            for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
                group["lr"] = base * factor

    def _groups(self, epoch: int) -> Iterator[list[Batch]]:
        """Yield the batches of the epoch, grouped by optimizer step."""
        shuffle = torch.Generator().manual_seed(derived_seed(self.recipe.seed, epoch, 1))
        batches = self.split.batches(self.recipe.batch_size, self.engine.share, shuffle)
        while group := list(itertools.islice(batches, self.recipe.accumulate)):
            yield group

    def _take_step(
        self, group: list[Batch], meter: Meter, accumulated: torch.Tensor | None
    ) -> torch.Tensor:
        """Take one optimizer step, and return the loss of the last batch."""
        rows = sum(batch.total for batch in group)
        for batch in group[:-1]:
            with self.engine.accelerator.no_sync(self.engine.step):
                self._backward(batch, rows, meter, accumulated)
        loss = self._backward(group[-1], rows, meter, accumulated)
        self._step()
        for parameter in self.parameters.values():
            parameter.grad = None
        return loss

    def _backward(
        self, given: Batch, rows: int, meter: Meter, accumulated: torch.Tensor | None
    ) -> torch.Tensor:
        """Accumulate the gradient of the mean loss over all rows of a step, in all processes."""
        batch = given.to(self.engine.device)
        counting, objective = accumulated is not None, self.objective
        places = None
        if isinstance(objective, Placed) and not counting and not batch.kept:
            places = objective.places(batch.labels)
        objective = self.objective if places is None else places.objective
        logits, values = self.engine.step(batch.inputs, counting, batch.kept, places)
        loss = objective(logits, batch.labels)
        # gradients are averaged over processes, whose batches may differ in size
        weight = batch.own * self.engine.share.count / rows
        self.engine.accelerator.backward(loss if weight == 1.0 else loss * weight)
        if accumulated is not None and self.mapping is not None:
            if values.isfinite().all():
                accumulated += self.mapping.count(values, batch)
            else:
                loss = loss * torch.nan  # all processes must see it, as they see losses
        with torch.no_grad():
            meter.add(loss, objective, logits, batch)
        return loss.detach()

    def _checks_after(self, number: int) -> bool:
        """Whether to synchronize with the device after a step and check for NaN."""
        cheap = self.engine.device.type == "cpu" and self.engine.share.count == 1
        return cheap or (number + 1) % _STEPS_BETWEEN_CHECKS == 0

    def _check(self, meter: Meter, epoch: int) -> None:
        bad = meter.first_bad()
        wrong = self.engine.total(torch.tensor(0 if bad is None else 1))
        if wrong > 0:
            place = "of another process" if bad is None else f"of batch {bad}"
            raise DivergenceError(f"the loss {place} of epoch {epoch + 1} is not finite")
