"""Sequence-first models: entries never go into the batch, and the axis that works is named."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.errors import InterfaceError, PassError
from graphprog.ir.graph import Graph

WIDTH, BATCH, LENGTH = 8, 4, 6


class SequenceFirst(nn.Module):
    """Blocks over [S, B, d], as PyTorch's own encoders have them by default."""

    def __init__(self, swaps: bool) -> None:
        super().__init__()
        self.swaps = swaps
        self.words = nn.Embedding(20, WIDTH)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(WIDTH, 2, 16) for _ in range(2))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        return self.body(x.transpose(0, 1) if self.swaps else x)

    def body(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x.mean(0)


CASES = {
    "swapped inside": (True, {"ids": {0: "batch", 1: "sequence"}}),
    "named": (False, {"ids": {0: "sequence", 1: "batch"}}),
    "unnamed": (False, None),
}


@cache
def captured(name: str) -> tuple[SequenceFirst, Graph, Tensor]:
    swaps, axes = CASES[name]
    torch.manual_seed(0)
    model = SequenceFirst(swaps).eval().requires_grad_(False)
    ids = torch.randint(20, (BATCH, LENGTH) if swaps else (LENGTH, BATCH))
    return model, gp.capture(model, (ids,), dynamic_axes=axes), ids


@pytest.mark.parametrize("name", CASES)
def test_entries_in_the_batch_are_refused_and_the_axis_that_works_is_named(name: str) -> None:
    model, graph, ids = captured(name)
    with pytest.raises(PassError, match=r"on axis 1 here: this axis is the batch") as caught:
        gp.compile(graph, gp.Program([gp.Concatenative(at="embedding", length=3)]))
    assert caught.value.remedies == ("axis=0: there it works",)
    new = torch.randn(3, 1, WIDTH, generator=torch.Generator().manual_seed(0))
    part = gp.Concatenative(at="embedding", length=3, axis=0, value=gp.Fixed(new))
    x = model.words(ids).transpose(0, 1) if model.swaps else model.words(ids)
    expected = model.body(torch.cat([new.expand(-1, BATCH, -1), x]))
    torch.testing.assert_close(gp.compile(graph, gp.Program([part]))(ids), expected)


def test_examples_are_not_inserted_before_others() -> None:
    _, graph, _ = captured("swapped inside")
    with pytest.raises(PassError, match="this axis is the batch") as caught:
        gp.compile(graph, gp.Program([gp.Concatenative(at="tokens", length=3, axis=0)]))
    assert caught.value.remedies == ("axis=1: there it works",)


def test_entries_of_the_batch_are_not_replaced() -> None:
    _, graph, _ = captured("named")
    with pytest.raises(InterfaceError, match=r"blocks.0:out: axis 1 is the batch"):
        gp.compile(graph, gp.Program([gp.Replacement(at="hidden[0]", length=3)]))
