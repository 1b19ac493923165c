"""Bounds of masks and positions, beside their values for random inputs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import graphprog as gp
from graphprog.passes.selection.ranges import Ranges

COUNT = 2
REGIONS = ((0, COUNT), (COUNT, math.inf), (0, 1), (0, math.inf))


def numbers(seen: Tensor) -> Tensor:
    return torch.arange(seen.shape[1] + COUNT)


def given(seen: Tensor) -> Tensor:
    """Whether entries are there: those of the prompt are."""
    return F.pad(seen, (COUNT, 0), value=1)


def causal(seen: Tensor) -> Tensor:
    own = numbers(seen)
    return (own <= own[:, None])[None]


MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "causal": lambda seen: causal(seen) & given(seen).bool()[:, None],
    "seen too early": lambda seen: (numbers(seen) <= numbers(seen)[:, None] + 1)[None],
    "float": lambda seen: torch.where(causal(seen), 0.0, float("-inf")),
    "least": lambda seen: (~causal(seen)).float() * torch.finfo(torch.float32).min,
    "half": lambda seen: torch.where(causal(seen), 0.0, float("-inf")).half(),
    "subtracted": lambda seen: (1.0 - causal(seen).float()) * torch.finfo(torch.float32).min,
    "upper": lambda seen: (
        torch.full((seen.shape[1] + COUNT,) * 2, float("-inf")).triu(1)[None] + seen[:, :1, None]
    ),
    "lower": lambda seen: torch.ones((seen.shape[1] + COUNT,) * 2).tril()[None] - 1,
    "wrapped": lambda seen: (numbers(seen) * 200 - 100).to(torch.int8).long()[None, None],
    "negative": lambda seen: -(~causal(seen)).float() * 1e4,
    "filled": lambda seen: torch.zeros(1).masked_fill(~causal(seen), -1e9),
    "window": lambda seen: causal(seen) & (numbers(seen) > numbers(seen)[:, None] - 3),
    "or padding": lambda seen: causal(seen) | (given(seen) == 0)[:, None],
    "joined": lambda seen: (
        torch.cat([torch.ones_like(seen[:, :COUNT]), seen], 1).bool()[:, None] & causal(seen)
    ),
    "places": lambda seen: (given(seen).cumsum(1) - 1)[:, None] + 0 * numbers(seen)[:, None],
    "indexed": lambda seen: (
        given(seen).bool()[torch.arange(seen.shape[0])[:, None, None], numbers(seen)[None, None]]
        & causal(seen)
    ),
    "shifted": lambda seen: given(seen)[:, 1:][:, None] - numbers(seen)[1:, None],
}


class Masking(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, seen: Tensor) -> Tensor:
        return MASKS[self.kind](seen)


@pytest.mark.parametrize("kind", MASKS)
def test_no_entry_is_outside_of_the_bounds(kind: str) -> None:
    torch.manual_seed(0)
    axes = {"seen": {0: "batch", 1: "length"}}
    graph = gp.capture(Masking(kind), (torch.ones(3, 5, dtype=torch.int64),), dynamic_axes=axes)
    ranges = Ranges(graph.code, graph.weights, frozenset())
    (result,) = graph.code.output_node().args[0]
    values = [graph.run([torch.randint(2, (3, 5))])[0].double() for _ in range(8)]
    rank = values[0].ndim
    for rows, columns in itertools.product(REGIONS, REGIONS):
        region = tuple(
            (axis, start, end)
            for axis, (start, end) in ((rank - 2, rows), (rank - 1, columns))
            if (start, end) != (0, math.inf) and result.meta["val"].shape[axis] != 1
        )
        found = ranges.of(result, region)
        parts = []
        for value in values:
            for axis, start, end in region:
                stop = int(min(end, value.shape[axis]))
                value = value.narrow(axis, start, max(0, stop - start))
            parts.append(value)
        assert all((part >= found.low).all() and (part <= found.high).all() for part in parts)
        if not found.varies:
            assert all((part == parts[0][:1]).all() for part in parts)


@pytest.mark.parametrize("kind", ["causal", "float", "half", "window", "joined", "indexed"])
def test_samples_are_proved_to_be_hidden(kind: str) -> None:
    axes = {"seen": {0: "batch", 1: "length"}}
    graph = gp.capture(Masking(kind), (torch.ones(3, 5, dtype=torch.int64),), dynamic_axes=axes)
    ranges = Ranges(graph.code, graph.weights, frozenset())
    (result,) = graph.code.output_node().args[0]
    rank = result.meta["val"].ndim
    hidden = ranges.of(result, ((rank - 2, 0, COUNT), (rank - 1, COUNT, math.inf)))
    assert hidden.high == (-math.inf if kind in ("float", "half") else 0)
    assert not ranges.of(result, ((rank - 2, 0, COUNT), (rank - 1, 0, COUNT))).varies
