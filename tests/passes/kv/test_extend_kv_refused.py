"""What a memory cannot be put in front of, since masks or positions could not follow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import graphprog as gp
from graphprog.errors import PassError

WORDS, WIDTH = 20, 16


class Reader(nn.Module):
    """One attention over tokens with learned positions; its scores may get a bias."""

    def __init__(self, looked_up: bool = True, bias: str = "") -> None:
        super().__init__()
        self.words = nn.Parameter(torch.randn(WORDS, WIDTH))
        self.places = nn.Embedding(64, WIDTH)
        self.project = nn.Linear(WIDTH, 3 * WIDTH)
        self.looked_up = looked_up
        self.bias = bias

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        if self.looked_up:
            x = functional.embedding(ids, self.words)
        else:
            x = functional.one_hot(ids, WORDS).float() @ self.words
        x = x + self.places(torch.arange(length))
        query, key, value = (part[:, None] for part in self.project(x).chunk(3, -1))
        if self.bias == "relative":
            distances = torch.arange(1 - length, length)[:, None] / torch.arange(1, WIDTH + 1)
            scores = query @ distances.sin().mT  # one for each of the 2 length - 1 distances
            value = value + scores.mean(-1, keepdim=True)
        return functional.scaled_dot_product_attention(query, key, value)[:, 0]


def captured(model: nn.Module) -> gp.Graph:
    """The graph of a reader, for any batch and length."""
    ids = torch.randint(WORDS, (2, 7))
    return gp.capture(model.eval(), (ids,), dynamic_axes={"ids": {0: "batch", 1: "length"}})


def test_tokens_that_are_not_looked_up_are_refused_where_their_positions_would_move() -> None:
    graph = captured(Reader(looked_up=False))
    with pytest.raises(PassError, match=r"(?s)nor from rows that ids look up.*'keep'.*kv_refused"):
        gp.compile(graph, gp.Program([gp.Prefix(length=3)]))
    task = gp.compile(graph, gp.Program([gp.Prefix(length=3, positions="keep")]))
    assert task(torch.randint(WORDS, (3, 5))).shape == (3, 5, WIDTH)


def test_a_value_of_all_distances_is_refused() -> None:
    graph = captured(Reader(bias="relative"))
    message = r"(?s)dimension 1 does not have one entry per token.*2\*L - 1.*extend_kv_refused.py"
    with pytest.raises(PassError, match=message):
        gp.compile(graph, gp.Program([gp.Prefix(length=3)]))
