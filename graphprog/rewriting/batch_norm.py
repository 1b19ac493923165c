"""Batch norm in a program: results in training and in evaluation from one trace."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from graphprog.errors import ProgramError
from graphprog.rewriting.frozen import Frozen


@dataclasses.dataclass
class Switch:
    """Results of one call of a batch norm layer.

    Attributes:
        evaluating: the result in evaluation.
        training: the result in training.
        updates: new values of the layer's buffers after a training step, by name.
    """

    evaluating: torch.Tensor
    training: torch.Tensor
    updates: dict[str, torch.Tensor]


class SwitchingBatchNorm(nn.Module):
    """Batch norm that computes both of its results and the new statistics: [B, C, ...] -> same.

    A graph is functional and traced once, so a layer in it can neither read its mode nor write to
    its buffers. Tensors have the same names as in ``torch.nn.BatchNorm2d``.

    Args:
        layer: the layer to replace; it has running statistics.
    """

    weight: torch.Tensor | None
    bias: torch.Tensor | None
    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def __init__(self, layer: _BatchNorm) -> None:
        super().__init__()
        self.epsilon, self.momentum = layer.eps, layer.momentum
        for name in ("weight", "bias"):
            self.register_parameter(name, getattr(layer, name))
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(layer, name))
        self.called: Switch | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize by the running statistics, and keep the training results in ``called``."""
        if self.called is not None:
            raise ProgramError(
                "a module calls the same batch norm layer twice, which would mix their statistics",
                [
                    "use one nn.BatchNorm2d layer per call",
                    "use nn.GroupNorm, which has no running statistics",
                ],
            )
        weight, bias, epsilon = self.weight, self.bias, self.epsilon
        known = (self.running_mean, self.running_var)
        evaluating = functional.batch_norm(x, *known, weight, bias, False, 0.0, epsilon)
        # not torch.nn.functional.batch_norm: it compares the batch size with a number
        training = torch.batch_norm(x, weight, bias, None, None, True, 0.0, epsilon, False)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        seen = (x.detach().mean(axes), x.detach().var(axes, correction=1))
        count = self.num_batches_tracked + 1
        factor = 1 / count if self.momentum is None else self.momentum
        mean, var = (old + factor * (new - old) for old, new in zip(known, seen, strict=True))
        updates = {"running_mean": mean, "running_var": var, "num_batches_tracked": count}
        self.called = Switch(evaluating, training, updates)
        return evaluating


def switching(module: nn.Module) -> nn.Module:
    """Replace the batch norm layers of a module in place by switching ones, except frozen ones."""
    kept = [part for part in module.modules() if isinstance(part, Frozen)]
    frozen = {inner for part in kept for inner in part.modules()}
    parts = [part for part in module.modules() if part not in frozen]
    layers = {
        part: SwitchingBatchNorm(part)
        for part in parts
        if isinstance(part, _BatchNorm) and part.running_mean is not None
    }
    for parent in parts:
        for name, child in parent._modules.items():
            if isinstance(child, _BatchNorm) and child in layers:
                parent._modules[name] = layers[child]
    own = layers.get(module) if isinstance(module, _BatchNorm) else None
    return module if own is None else own


def take_switches(module: nn.Module) -> dict[str, Switch]:
    """Return and clear what the layers of a module kept during their call, by path."""
    found = {}
    for path, part in module.named_modules():
        if isinstance(part, SwitchingBatchNorm) and part.called is not None:
            found[path] = part.called
            part.called = None
    return found
