"""Positions and units of every kind of manipulation that takes them, against the whole change."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.manipulations.selective import SelectiveManipulation
from graphprog.spec.kinds import PLACES
from graphprog.spec.registry import lookup

WIDTH = 8


def _numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


PARTS: dict[str, SelectiveManipulation] = {
    "ablation": gp.Ablation(),
    "adapter": gp.Adapter(reduction=2),
    "additive": gp.Additive(value=gp.Learnable(shape=(WIDTH,))),
    "conditional": gp.Conditional(features="about:out", reduction=2),
    "conditional-steering": gp.ConditionalSteering(
        gp.Fixed(_numbers(WIDTH)), gp.Fixed(_numbers(WIDTH).flip(0))
    ),
    "linear-subspace": gp.Subspace(rank=2),
    "low-rank-update": gp.LowRankUpdate(at="first", rank=2),
    "mixture": gp.Mixture(count=3),
    "parametric": gp.Parametric(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())),
    "projection": gp.Projection(),
    "scale": gp.Scale(),
    "vector-update": gp.VectorUpdate(at="first", rank=4),
}
OTHER = {
    "adaption-prompt": "it adds to the output of attention, from keys and values of its own",
    "generated": "its decoder makes images",
    "replacement": "its entries stand at the positions in order: test_replacement_lengths",
    "sample-mask": "its network reads images",
    "swap": "the other run's value is an input: interventions/test_interventions",
    "token-update": "it changes rows of a table, which integers choose",
    "trainable-layer": "it takes the place of a layer",
}


class Chain(nn.Module):
    """Whose output is the value that a part changes; a vector describes each row."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.about = nn.Linear(4, WIDTH)
        self.last = nn.Identity()

    def forward(self, x: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = self.first(x + self.about(row)[:, None])
        return self.last(value)  # type: ignore[no-any-return]


@cache
def graph() -> gp.Graph:
    torch.manual_seed(0)
    example = (torch.randn(2, 6, WIDTH), torch.randn(2, 4))
    axes = {"x": {0: "batch", 1: "sequence"}, "row": {0: "batch"}}
    return gp.capture(Chain().eval(), example, dynamic_axes=axes)


def compiled(part: SelectiveManipulation) -> gp.ReprogrammedModel:
    """With numbers in all that trains, the same for the same part."""
    task = gp.compile(graph(), gp.Program([dataclasses.replace(part, at="first:out")]))
    state = task.program_state()
    generator = torch.Generator().manual_seed(2)
    task.load_program_state(
        {name: torch.randn(one.shape, generator=generator) for name, one in state.items()}
    )
    return task


@pytest.mark.parametrize("kind", PARTS)
def test_what_is_not_chosen_stays_and_the_rest_changes_as_without_a_choice(kind: str) -> None:
    x = torch.randn(3, 7, WIDTH), torch.randn(3, 4)
    plain, whole = graph()(*x), compiled(PARTS[kind])(*x)
    assert (whole != plain).any(-1).any()
    chosen = compiled(dataclasses.replace(PARTS[kind], positions="1:-2", units=(0, 3, -1)))(*x)
    mask = torch.zeros(3, 7, WIDTH, dtype=torch.bool)
    mask[:, 1:-2, [0, 3, WIDTH - 1]] = True
    assert chosen.equal(torch.where(mask, whole, plain))


def test_every_kind_that_takes_them_is_here() -> None:
    kinds = {
        kind
        for kind in PLACES
        if (found := lookup(kind)) is not None and issubclass(found, SelectiveManipulation)
    }
    assert kinds == set(PARTS) | set(OTHER)
