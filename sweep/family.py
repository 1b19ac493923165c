"""A family of models, and one small member of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

Call = Callable[[int, int], dict[str, Any]]
"""Makes the keyword arguments of a call for a batch size and a length."""

Axes = Mapping[str, Mapping[int, str]]

CAPTURED = (2, 9)
"""Batch size and length at capture."""

UNSEEN = (3, 12)
"""Batch size and length of the checks."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A small model with random weights, and how it is called.

    Attributes:
        model: in eval mode, without gradients.
        call: makes the arguments of a call; what has no length of its own ignores the length.
        axes: dynamic axes to try in order; None lets tracing find the batch.
        ids: name of the input that is looked up in a table of embeddings; empty if there is none.
        embed: input embeddings by token ids, where the model takes ``inputs_embeds``.
        what: the class that was built.
    """

    model: nn.Module
    call: Call
    axes: tuple[Axes | None, ...] = (None,)
    ids: str = ""
    embed: nn.Module | None = None
    what: str = ""


@dataclasses.dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        name: ``library/family``.
        kind: what its models do, in a word or two.
        build: makes the small member.
    """

    name: str
    kind: str
    build: Callable[[], Case]

    @property
    def library(self) -> str:
        """The library it comes from."""
        return self.name.partition("/")[0]


def settled(model: nn.Module) -> nn.Module:
    """Make differences visible: no tensor of zeros; frozen."""
    for parameter in model.parameters():
        if parameter.is_floating_point() and not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


def measured(model: nn.Module, arguments: dict[str, Any]) -> None:
    """Give batch norms the statistics of a call, without which random weights let a signal die."""
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        model(**arguments)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum


def noise(*shape: int) -> torch.Tensor:
    """The same numbers for the same shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
