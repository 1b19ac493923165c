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
from graphprog.train.optimizers import SGD, Adam, AdamW, Optimizer

OptimizerMaker = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
Schedule = Callable[[float], float]

PRECISIONS = ("no", "bf16", "fp16")
ENGINES = ("pytorch", "onnxruntime")
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
OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "adamw": AdamW, "sgd": SGD}


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
    engine: str = "pytorch"

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
        _require_choice("engine", self.engine, ENGINES, "")
        if self.engine == "onnxruntime":
            self._require_plain_steps()

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer; SGD has a momentum of 0.9, as visual prompts are trained with it."""
        if isinstance(self.optimizer, str):
            return self.described(self.optimizer)(parameters)
        made = self.optimizer(parameters)
        if not isinstance(made, torch.optim.Optimizer):
            raise TrainingError(f"optimizer returned a {type(made).__name__}, no Optimizer")
        return made

    def described(self, optimizer: str) -> Optimizer:
        """The description of an optimizer that has a name."""
        return OPTIMIZERS[optimizer](self.lr, weight_decay=self.weight_decay)

    @property
    def description(self) -> Optimizer:
        """The optimizer as data, which steps of ONNX Runtime are made from.

        Raises:
            TrainingError: it is a function.
        """
        if isinstance(self.optimizer, str):
            return self.described(self.optimizer)
        if isinstance(self.optimizer, Optimizer):
            return self.optimizer
        raise TrainingError(
            "ONNX Runtime cannot take the steps of an optimizer that is a function",
            ["optimizer=gp.Adam(1e-2), gp.AdamW(...) or gp.SGD(...)", 'engine="pytorch"'],
        )

    def _require_plain_steps(self) -> None:
        """Refuse what a training step of ONNX Runtime does not do."""
        if self.accumulate != 1 or self.precision != "no":
            name = "accumulate" if self.accumulate != 1 else "precision"
            raise TrainingError(
                f"steps of ONNX Runtime have one batch each, in the precision of the source: "
                f"{name}={getattr(self, name)!r} is not for them",
                [f"leave {name} out", 'engine="pytorch"'],
            )
        _ = self.description

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
    if isinstance(value, Optimizer):
        return repr(value)
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
