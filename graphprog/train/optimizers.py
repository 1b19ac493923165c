"""Optimizers as data: one description for PyTorch and for exported training steps."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import torch
from torch import nn

from graphprog.errors import TrainingError
from graphprog.spec.checks import require_number

Moments = tuple[torch.Tensor, ...]


@dataclasses.dataclass(frozen=True)
class Optimizer(abc.ABC):
    """Description of an optimizer: ``gp.fit(task, data, optimizer=gp.Adam(1e-2))``.

    Attributes:
        lr: learning rate, multiplied by the schedule.
        weight_decay: weight decay; an L2 penalty except in :class:`AdamW`.
        clip: maximum norm of the gradient of all parameters together; None for no clipping.
    """

    moments: ClassVar[tuple[str, ...]] = ()
    """Names, as in PyTorch, of the state tensors that have the shape of their parameter."""

    lr: float = 1e-2
    _: dataclasses.KW_ONLY
    weight_decay: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "clip" and value is None:
                continue
            for number in value if isinstance(value, tuple) else (value,):
                kind = type(self).__name__
                require_number(kind, field.name, number, 0, error=TrainingError)

    def __call__(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Make the PyTorch optimizer for some parameters."""
        made = self.make(parameters)
        if (limit := self.clip) is not None:

            def clip(*_: object) -> None:
                nn.utils.clip_grad_norm_(parameters, limit)

            made.register_step_pre_hook(clip)
        return made

    @abc.abstractmethod
    def make(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Make the PyTorch optimizer, without clipping."""

    @abc.abstractmethod
    def update(
        self,
        value: torch.Tensor,
        gradient: torch.Tensor,
        moments: Moments,
        step: torch.Tensor,
        lr: torch.Tensor,
    ) -> tuple[torch.Tensor, Moments]:
        """Update one parameter as PyTorch's optimizer does, as a pure function.

        Args:
            value: value of the parameter, with at least one axis.
            gradient: gradient, of the same shape.
            moments: tensors named in :attr:`moments`, of the same shape; zeros at first.
            step: number of this step, from 1; an int64 scalar.
            lr: learning rate, a scalar.

        Returns:
            The new value and the new moments.
        """

    def settings(self) -> dict[str, Any]:
        """Return kind and fields as JSON values."""
        return {"kind": type(self).__name__, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent.

    Attributes:
        momentum: momentum factor; 0 for none.

    Example:
        >>> optimizer = gp.SGD(0.05, momentum=0.9)
        >>> history = gp.fit(task, (images, labels), epochs=1, optimizer=optimizer)
    """

    moments: ClassVar = ("momentum_buffer",)
    momentum: float = dataclasses.field(default=0.9, kw_only=True)

    def make(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """``torch.optim.SGD``."""
        return torch.optim.SGD(
            parameters, self.lr, momentum=self.momentum, weight_decay=self.weight_decay
        )

    def update(
        self,
        value: torch.Tensor,
        gradient: torch.Tensor,
        moments: Moments,
        step: torch.Tensor,
        lr: torch.Tensor,
    ) -> tuple[torch.Tensor, Moments]:
        """As :meth:`Optimizer.update`."""
        (buffer,) = moments
        if self.weight_decay:
            gradient = gradient + self.weight_decay * value
        buffer = self.momentum * buffer + gradient
        return value - lr * buffer, (buffer,)


@dataclasses.dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma and Ba, ICLR 2015).

    Attributes:
        betas: decay rates of the running means of gradients and of their squares.
        eps: added to the root of the latter.

    Example:
        >>> optimizer = gp.Adam(0.05, betas=(0.9, 0.99), clip=1.0)
        >>> history = gp.fit(task, (images, labels), epochs=1, optimizer=optimizer)
    """

    moments: ClassVar = ("exp_avg", "exp_avg_sq")
    _made: ClassVar[type[torch.optim.Adam]] = torch.optim.Adam
    betas: tuple[float, float] = dataclasses.field(default=(0.9, 0.999), kw_only=True)
    eps: float = dataclasses.field(default=1e-8, kw_only=True)

    def make(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Make PyTorch's optimizer of the same name."""
        return self._made(
            parameters, self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay
        )

    def update(
        self,
        value: torch.Tensor,
        gradient: torch.Tensor,
        moments: Moments,
        step: torch.Tensor,
        lr: torch.Tensor,
    ) -> tuple[torch.Tensor, Moments]:
        """As :meth:`Optimizer.update`."""
        if self.weight_decay:
            value, gradient = self._decayed(value, gradient, lr)
        first, second = (_number(beta, value) for beta in self.betas)
        mean = first * moments[0] + (1 - first) * gradient
        square = second * moments[1] + (1 - second) * gradient * gradient
        # in float64, as Python computes them for PyTorch: 1 - 0.999 has few digits in float32
        count = step.double()
        corrections = [(1 - beta**count).to(value.dtype) for beta in self.betas]
        spread = square.sqrt() / corrections[1].sqrt() + _number(self.eps, value)
        return value - lr / corrections[0] * mean / spread, (mean, square)

    def _decayed(
        self, value: torch.Tensor, gradient: torch.Tensor, lr: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return value and gradient, with weight decay applied to one of them."""
        return value, gradient + self.weight_decay * value


@dataclasses.dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019).

    Example:
        >>> optimizer = gp.AdamW(0.05, weight_decay=0.1)
        >>> history = gp.fit(task, (images, labels), epochs=1, optimizer=optimizer)
    """

    _made: ClassVar = torch.optim.AdamW

    def _decayed(
        self, value: torch.Tensor, gradient: torch.Tensor, lr: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return value * (1 - lr * self.weight_decay), gradient


def _number(number: float, like: torch.Tensor) -> torch.Tensor:
    """Return a number as a tensor of one axis: as a scalar, rewriting would drop x + 1e-8."""
    return torch.full((1,), number, dtype=like.dtype, device=like.device)
