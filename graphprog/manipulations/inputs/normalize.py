"""Input normalization as part of the graph."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from graphprog.errors import ProgramError
from graphprog.manipulations.base import Manipulation
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext


@spec("normalize")
@dataclasses.dataclass(frozen=True)
class Normalize(Manipulation):
    """Normalize (x − mean) / std per channel (axis 1), like the source model's preprocessing.

    Compiled from a program's contract; rarely written by hand.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for a float value [B, C, ...].

        Raises:
            ProgramError: the number of channels differs.
        """
        value = context.value
        if any(len(part) not in (1, value.shape[1]) for part in (self.mean, self.std)):
            raise ProgramError(
                f"normalization has {len(self.mean)} means and {len(self.std)} standard "
                f"deviations, but {context.where} has {value.shape[1]} channels"
            )
        return _Normalization(self.mean, self.std, value)


class _Normalization(nn.Module):
    """Forward: [B, C, ...] -> [B, C, ...]."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], like: torch.Tensor) -> None:
        super().__init__()
        shape = (-1, *(1,) * (like.ndim - 2))
        for name, values in (("mean", mean), ("std", std)):
            tensor = torch.tensor(values, dtype=like.dtype).reshape(shape)
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize."""
        return (x - self.mean) / self.std
