"""A source of fixed weights, to which programs that are kept in files belong."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

import graphprog as gp


def wave(module: Any, shift: float = 0.0) -> Any:
    """Set the weights of a module to numbers that no random generator makes."""
    for number, parameter in enumerate(module.parameters()):
        values = torch.arange(parameter.numel(), dtype=torch.float64)
        numbers = ((values * 37 + 11 * number) % 101 - 50) / 100 + shift
        parameter.data = numbers.to(parameter.dtype).reshape(parameter.shape)
    return module


class Source(nn.Module):
    """Weights without any random generator, so that a kept program still belongs to it."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 12)
        wave(self, shift)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.first(x).relu().mean((2, 3)))


@functools.cache
def captured(shift: float = 0.0, side: int = 10) -> gp.Graph:
    return gp.capture(Source(shift), (torch.zeros(2, 3, side, side),))


PROGRAM = gp.Program(
    [
        gp.ResizePad((1, 6, 6), size=7),
        gp.Additive(mask=gp.masks.border(inner=7), squash="sigmoid", name="frame"),
        gp.Additive(
            at="first:out", value=gp.Fixed(torch.tensor([0.5, -1.0, 0.0, 2.0])[:, None, None])
        ),
        gp.Additive(at="features", mask=gp.masks.given(torch.tensor([1.0, 0.0, 1.0, 0.0]))),
    ],
    align=gp.BayesianMap(classes=5),
    contract=gp.Contract("unit", mean=0.5, std=0.25, labels=("a", "b", "c", "d", "e")),
)


def trained(graph: gp.Graph) -> gp.ReprogrammedModel:
    """A task whose every tensor differs from what compiling alone would give."""
    task = gp.compile(graph, PROGRAM, seed=3)
    task.alignment.refresh(torch.arange(60, dtype=torch.float64).reshape(12, 5) % 7)
    with torch.no_grad():
        for number, parameter in enumerate(task.program.parameters()):
            parameter.add_(
                torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape) + number
            )
    task.summary = {"epochs": 2, "validation_accuracy": 0.5}
    return task
