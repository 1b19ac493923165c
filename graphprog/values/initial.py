"""What learnt values start from, beyond zeros and random numbers."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import TYPE_CHECKING

import torch

from graphprog.spec.registry import Spec

if TYPE_CHECKING:
    from graphprog.ir.graph import Graph


@dataclasses.dataclass(frozen=True)
class Spot:
    """Where initial values are wanted.

    Attributes:
        where: interface key.
        shape: of the values, without the batch.
        generator: source of all randomness.
        axis: of ``shape`` along which entries stand; None where the values are no entries.
        graph: what the interface lies in; None where the values may not look at it.
    """

    where: str
    shape: tuple[int, ...]
    generator: torch.Generator
    axis: int | None = None
    graph: Graph | None = None

    def placed(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows [n, ...], one an entry, in the shape that is wanted."""
        return rows if self.axis is None else rows.movedim(0, self.axis)


@dataclasses.dataclass(frozen=True)
class Init(Spec):
    """Base of initial values that are more than a word; see :mod:`graphprog.initializers`."""

    @abstractmethod
    def values(self, spot: Spot) -> torch.Tensor:
        """The initial values, float32, of the shape ``spot.shape``."""
