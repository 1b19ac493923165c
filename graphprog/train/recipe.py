"""The hyper-parameters of a run, checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from graphprog.errors import TrainingError
from graphprog.train.objective import Loss

OptimizerMaker = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
Schedule = Callable[[float], float]

PRECISIONS = ("no", "bf16", "fp16")
_DROPS = (0.5, 0.72)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of logits [B, K] and labels int64 [B], in float32 at least."""
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return functional.cross_entropy(logits, labels)


def constant(progress: float) -> float:
    """Always 1."""
    return 1.0


def cosine(progress: float) -> float:
    """Half a cosine, from 1 to 0."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def multistep(progress: float) -> float:
    """A tenth from 50 % of the steps on, a hundredth from 72 % (ILM-VP; arXiv:2211.11635)."""
    return float(0.1 ** sum(progress >= drop for drop in _DROPS))


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy}
SCHEDULES: dict[str, Schedule] = {"constant": constant, "cosine": cosine, "multistep": multistep}
OPTIMIZERS = ("adam", "adamw", "sgd")


@dataclass(frozen=True)
class Recipe:
    """How to train; the fields are the arguments of :func:`graphprog.fit`."""

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

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "patience"):
            _require_integer(name, getattr(self, name), 1, optional=name == "patience")
        _require_integer("seed", self.seed, 0, optional=False)
        for name in ("lr", "weight_decay"):
            value = getattr(self, name)
            good = isinstance(value, int | float) and math.isfinite(value) and value >= 0
            if not good or isinstance(value, bool):
                raise TrainingError(f"{name} must be a number of at least 0, not {value!r}")
        _require_choice("optimizer", self.optimizer, OPTIMIZERS, "params -> Optimizer")
        _require_choice("schedule", self.schedule, SCHEDULES, "progress in [0, 1) -> factor of lr")
        _require_choice("loss", self.loss, LOSSES, "(logits, labels) -> mean loss")
        _require_choice("precision", self.precision, PRECISIONS, "")

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer; SGD has a momentum of 0.9, as visual prompts are trained with it."""
        if not isinstance(self.optimizer, str):
            made = self.optimizer(parameters)
            if not isinstance(made, torch.optim.Optimizer):
                raise TrainingError(f"optimizer returned a {type(made).__name__}, no Optimizer")
            return made
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                parameters, self.lr, momentum=0.9, weight_decay=self.weight_decay
            )
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return kind(parameters, self.lr, weight_decay=self.weight_decay)

    def lr_factor(self, progress: float) -> float:
        """Factor of the learning rate after a share of all steps, in [0, 1)."""
        schedule = SCHEDULES[self.schedule] if isinstance(self.schedule, str) else self.schedule
        factor = float(schedule(progress))
        if not math.isfinite(factor) or factor < 0:
            raise TrainingError(f"the schedule returned {factor} at {progress:.3f} of the run")
        return factor

    @property
    def loss_function(self) -> Loss:
        """Outputs of the task and labels to a scalar, the mean over the batch."""
        return LOSSES[self.loss] if isinstance(self.loss, str) else self.loss

    def settings(self) -> dict[str, Any]:
        """The fields as JSON values; functions by their name."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def _plain(value: Any) -> Any:
    if callable(value):
        name = getattr(value, "__qualname__", type(value).__qualname__)
        return f"{getattr(value, '__module__', None) or type(value).__module__}.{name}"
    return value


def _require_integer(name: str, value: object, least: int, optional: bool) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise TrainingError(f"{name} must be an integer of at least {least}, not {value!r}")


def _require_choice(name: str, value: object, choices: Iterable[str], form: str) -> None:
    if (isinstance(value, str) and value in choices) or (form and callable(value)):
        return
    own = [f"a function: {form}"] if form else []
    raise TrainingError(f"{name} {value!r} is unknown; known: {', '.join(choices)}", own)
