"""The hyper-parameters of a run, checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from graphprog.errors import TrainingError
from graphprog.spec.checks import require_choice, require_integer, require_number
from graphprog.train.class_weights import ClassWeight, check_class_weight
from graphprog.train.engines import ENGINES
from graphprog.train.metrics import Given, Metric, named_metrics
from graphprog.train.monitor import Monitor
from graphprog.train.named_losses import LOSSES
from graphprog.train.objective import Loss
from graphprog.train.optimizers import SGD, Adam, AdamW, Optimizer

OptimizerMaker = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
Schedule = Callable[[float], float]

PRECISIONS = ("no", "bf16", "fp16")
MEMORIES = ("normal", "low")
REUSES = ("off", "auto", "memory", "disk")
_DROPS = (0.5, 0.72)


def constant(progress: float) -> float:
    """Always 1."""
    return 1.0


def cosine(progress: float) -> float:
    """Return half a cosine, from 1 to 0."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def linear(progress: float) -> float:
    """Return a line from 1 to 0."""
    return 1.0 - progress


def multistep(progress: float) -> float:
    """Return 0.1 from 50 % of the steps on, 0.01 from 72 % (ILM-VP; arXiv:2211.11635)."""
    return float(0.1 ** sum(progress >= drop for drop in _DROPS))


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "multistep": multistep,
}
OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "adamw": AdamW, "sgd": SGD}


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of training; the fields are arguments of :func:`graphprog.fit`."""

    epochs: int = 20
    batch_size: int = 64
    optimizer: str | OptimizerMaker = "adam"
    lr: float = 0.01
    weight_decay: float = 0.0
    schedule: str | Schedule = "constant"
    loss: str | Loss = "cross_entropy"
    accumulate: int = 1
    precision: str = "no"
    patience: int | None = None
    seed: int = 0
    engine: str = "pytorch"
    warmup: float = 0.0
    class_weight: ClassWeight | None = None
    metrics: Given = ()
    monitor: str | None = None
    reuse: str = "auto"
    memory: str = "normal"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "patience"):
            if name != "patience" or self.patience is not None:
                require_integer("", name, getattr(self, name), 1, TrainingError)
        require_integer("", "seed", self.seed, 0, TrainingError)
        for name in ("lr", "weight_decay"):
            require_number("", name, getattr(self, name), 0, error=TrainingError)
        _require_known("optimizer", self.optimizer, OPTIMIZERS, "params -> Optimizer")
        _require_known("schedule", self.schedule, SCHEDULES, "progress in [0, 1) -> factor of lr")
        _require_known("loss", self.loss, LOSSES, "(outputs, labels) -> mean loss")
        require_choice("", "precision", self.precision, PRECISIONS, error=TrainingError)
        require_choice("", "engine", self.engine, ENGINES, error=TrainingError)
        require_choice("", "reuse", self.reuse, REUSES, error=TrainingError)
        require_choice("", "memory", self.memory, MEMORIES, error=TrainingError)
        if self.memory == "low" and self.engine != "pytorch":
            raise TrainingError(
                f"memory='low' is not possible with engine={self.engine!r}",
                ['engine="pytorch"', "a smaller batch_size, with accumulate="],
            )
        require_number("", "warmup", self.warmup, 0, error=TrainingError)
        if self.warmup >= 1:
            raise TrainingError(
                f"warmup must be a part of the run below 1, not {self.warmup}",
                ["warmup=steps / (epochs * steps per epoch)"],
            )
        check_class_weight(self.class_weight)
        _ = self.monitored

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Make the optimizer; SGD has a momentum of 0.9, as usual for visual prompts."""
        if isinstance(self.optimizer, str):
            return self.described(self.optimizer)(parameters)
        made = self.optimizer(parameters)
        if not isinstance(made, torch.optim.Optimizer):
            raise TrainingError(f"optimizer returned a {type(made).__name__}, not an Optimizer")
        return made

    def described(self, optimizer: str) -> Optimizer:
        """Return the description of an optimizer given by name."""
        return OPTIMIZERS[optimizer](self.lr, weight_decay=self.weight_decay)

    @property
    def description(self) -> Optimizer:
        """Return the optimizer as data, for training steps in ONNX Runtime.

        Raises:
            TrainingError: it is a function.
        """
        if isinstance(self.optimizer, str):
            return self.described(self.optimizer)
        if isinstance(self.optimizer, Optimizer):
            return self.optimizer
        raise TrainingError(
            "ONNX Runtime cannot run an optimizer that is a function",
            ["use optimizer=gp.Adam(1e-2), gp.AdamW(...) or gp.SGD(...)", 'use engine="pytorch"'],
        )

    def lr_factor(self, progress: float, step: float = 0.0) -> float:
        """Return the factor of the learning rate.

        Args:
            progress: part of the run before this step, in [0, 1).
            step: part of the run that the step is. The factor rises with the end of the step
                during the warmup, so that the first step counts.
        """
        if progress < self.warmup:
            return min((progress + step) / self.warmup, 1.0)
        schedule = SCHEDULES[self.schedule] if isinstance(self.schedule, str) else self.schedule
        factor = float(schedule((progress - self.warmup) / (1 - self.warmup)))
        if not math.isfinite(factor) or factor < 0:
            raise TrainingError(
                f"the schedule returned {factor} at progress {progress:.3f} of the run"
            )
        return factor

    @property
    def named_metrics(self) -> dict[str, Metric]:
        """Return the metrics by name."""
        return named_metrics(self.metrics)

    @property
    def monitored(self) -> Monitor:
        """Return what determines the best epoch."""
        return Monitor.of(self.monitor, self.named_metrics)

    def settings(self) -> dict[str, Any]:
        """Return the fields as JSON values; functions by their name."""
        found = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return {**found, "metrics": _plain(self.named_metrics)}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Optimizer):
        return repr(value)
    if callable(value):
        name = getattr(value, "__qualname__", type(value).__qualname__)
        return f"{getattr(value, '__module__', None) or type(value).__module__}.{name}"
    return value


def _require_known(name: str, value: object, choices: Iterable[str], form: str) -> None:
    """Check that a value is a known name or a function."""
    if not callable(value):
        require_choice("", name, value, tuple(choices), [f"a function: {form}"], TrainingError)
