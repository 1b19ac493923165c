"""Manipulations: operator τ at a location ℓ with a configuration λ."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod

import torch
from torch import nn

from graphprog.spec import Spec


@dataclasses.dataclass(frozen=True)
class Manipulation(Spec):
    """Something done to the value at an interface.

    A manipulation is data. :meth:`build` makes the module that does it, which is then traced and
    inlined into the graph like any model.
    """

    at: str = dataclasses.field(default="input", kw_only=True)
    name: str = dataclasses.field(default="", kw_only=True)

    @property
    def label(self) -> str:
        """The name of the program's part: ``name``, or the kind."""
        return (self.name or self.kind).replace("-", "_")

    @abstractmethod
    def build(self, value: torch.Tensor, where: str, generator: torch.Generator) -> nn.Module:
        """Make the module.

        Args:
            value: fake tensor with the shape and dtype of the interface; axis 0 is the batch.
            where: interface key, for messages.
            generator: source of random initial values.
        """
