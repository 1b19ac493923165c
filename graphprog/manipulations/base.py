"""Manipulations: operator τ at a location ℓ with a configuration λ."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod

import torch
from torch import nn

from graphprog.ir.graph import Graph
from graphprog.spec.registry import Spec


@dataclasses.dataclass(frozen=True)
class Manipulation(Spec):
    """Something done to the value at an interface.

    A manipulation is data. :meth:`build` makes the module that does it, which is then traced and
    inlined into the graph like any model. The module takes the value at the interface and returns
    the one that takes its place; it may return a second tensor, for other parts to read.

    Your own is a frozen dataclass registered by :func:`graphprog.spec.spec`. It then prints, saves
    and loads like the built-in ones, and other packages offer theirs as entry points.
    """

    at: str = dataclasses.field(default="input", kw_only=True)
    name: str = dataclasses.field(default="", kw_only=True)

    @property
    def label(self) -> str:
        """The name of the program's part: ``name``, or the kind."""
        return (self.name or self.kind).replace("-", "_")

    @property
    def reads(self) -> tuple[str, ...]:
        """What else the module takes, after the value at the interface.

        Each is an interface or its alias; ``source.<path>``, a frozen tensor of the source;
        ``program.<part>``, what another part of the program shares; or ``program.<part>.<path>``,
        a tensor of that part. A ``*`` in them is what the ``*`` of ``at`` stands for.
        """
        return ()

    @abstractmethod
    def build(self, value: torch.Tensor, where: str, generator: torch.Generator) -> nn.Module:
        """Make the module.

        Args:
            value: fake tensor with the shape and dtype of the interface; axis 0 is the batch.
            where: interface key, for messages.
            generator: source of random initial values.
        """

    def build_reading(
        self, values: tuple[torch.Tensor, ...], where: str, generator: torch.Generator
    ) -> nn.Module:
        """Make the module of a manipulation that needs to know what :attr:`reads` names.

        Args:
            values: fake tensors: that of the interface, then those that ``reads`` names.
            where: interface key, for messages.
            generator: source of random initial values.
        """
        return self.build(values[0], where, generator)

    def build_in(
        self,
        graph: Graph,
        values: tuple[torch.Tensor, ...],
        where: str,
        generator: torch.Generator,
    ) -> nn.Module:
        """Make the module of a manipulation whose initial values come from the source.

        Args:
            graph: what the interface lies in; :mod:`graphprog.initializers` runs it.
            values: as in :meth:`build_reading`.
            where: interface key.
            generator: source of random initial values.
        """
        return self.build_reading(values, where, generator)
