"""Prompts and texts beyond a table of positions are refused with both lengths."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.errors import DataError, PassError
from graphprog.ir.graph import Graph

ROWS, LENGTH = 20, 6
Positions = Callable[["Text", Tensor], Tensor]

POSITIONS: dict[str, Positions] = {
    "counted": lambda m, mask: m.places(torch.arange(mask.shape[1])),
    "from two": lambda m, mask: m.places(torch.arange(mask.shape[1])[None] + 2),
    "by mask": lambda m, mask: m.places(mask.cumsum(1) * mask - 1),
    "sliced": lambda m, mask: m.places.weight[: mask.shape[1]],
}
FIRST = {"counted": 0, "from two": 2, "by mask": 0, "sliced": 0}


class Text(nn.Module):
    """A text of tokens and positions."""

    def __init__(self, positions: Positions) -> None:
        super().__init__()
        self.positions = positions
        self.words, self.places = nn.Embedding(50, 8), nn.Embedding(ROWS, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.words(ids) + self.positions(self, mask)
        return self.head((x * mask[..., None]).tanh().sum(1))


def example(length: int) -> tuple[Tensor, Tensor]:
    return torch.ones(2, length).long(), torch.ones(2, length).long()


@cache
def captured(name: str, varying: bool = True) -> Graph:
    axes = {one: {0: "batch", 1: "sequence"} for one in ("ids", "mask")} if varying else None
    model = Text(POSITIONS[name]).eval().requires_grad_(False)
    return gp.capture(model, example(LENGTH), dynamic_axes=axes)


def compiled(graph: Graph, length: int) -> gp.ReprogrammedModel:
    return gp.compile(graph, gp.Program([gp.Concatenative(at="tokens", length=length)]))


@pytest.mark.parametrize("name", POSITIONS)
def test_a_prompt_beyond_the_positions_is_refused_with_both_lengths(name: str) -> None:
    graph = captured(name)
    most = ROWS - LENGTH - FIRST[name]
    assert compiled(graph, most)(*example(LENGTH)).shape == (2, 3)
    with pytest.raises(PassError, match=rf"\b{ROWS + 1}\b[^$]*\b{ROWS}\b"):
        compiled(graph, most + 1)


def test_a_prompt_beyond_the_positions_of_a_fixed_length_is_refused() -> None:
    with pytest.raises(PassError, match=r"needs 21 positions.* has 20") as caught:
        compiled(captured("counted", varying=False), 15)
    assert caught.value.remedies[0] == "use fewer entries: 14 or less"


@pytest.mark.parametrize("name", ["counted", "from two", "sliced"])
def test_a_text_beyond_the_positions_is_refused_at_the_call(name: str) -> None:
    task = compiled(captured(name), 10)
    most = ROWS - 10 - FIRST[name]
    assert task(*example(most)).shape == (2, 3)
    with pytest.raises(DataError, match=rf"length {most + 1} on axis S.* {most} at most"):
        task(*example(most + 1))
