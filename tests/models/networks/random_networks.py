"""Random small networks with branches, residuals and reused parts."""

from __future__ import annotations

import dataclasses

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import nn


@dataclasses.dataclass(frozen=True)
class Step:
    """One part: which earlier values it reads, and what it does with them."""

    reads: tuple[int, ...]
    kind: str


KINDS = ("linear", "identity", "tanh", "inplace", "shared")


class Network(nn.Module):
    """Every step adds its inputs and passes the sum through a module."""

    def __init__(self, steps: list[Step]) -> None:
        super().__init__()
        shared = nn.Linear(4, 4)
        makers = {
            "linear": lambda: nn.Linear(4, 4),
            "identity": nn.Identity,
            "tanh": nn.Tanh,
            "inplace": lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True)),
            "shared": lambda: shared,
        }
        self.steps = steps
        self.parts = nn.ModuleList(makers[step.kind]() for step in steps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = [x]
        for step, part in zip(self.steps, self.parts, strict=True):
            total = values[step.reads[0]]
            for number in step.reads[1:]:
                total = total + values[number]
            values.append(part(total))
        return values[-1] + values[-2]


@st.composite
def networks(draw: st.DrawFn) -> Network:
    steps = []
    for number in range(draw(st.integers(2, 7))):
        reads = draw(st.lists(st.integers(0, number), min_size=1, max_size=3, unique=True))
        steps.append(Step(tuple(reads), draw(st.sampled_from(KINDS))))
    torch.manual_seed(draw(st.integers(0, 5)))
    return Network(steps).eval()


X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
few = settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
