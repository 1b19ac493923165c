"""Dimensions that are split by ``unflatten``, counted from either end."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphprog as gp


class Split(nn.Module):
    """Splits the channels, or the batch and tokens that it joined before."""

    def __init__(self, what: str, dim: int) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.what, self.dim = what, dim

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rest(self.embed(x))

    def rest(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.what == "channels":
            return tokens.unflatten(self.dim, (2, 4)).square().mean((1, 2))
        joined = tokens.flatten(0, 1)
        return joined.unflatten(self.dim, (tokens.shape[0], tokens.shape[1])).mean(1)


@pytest.mark.parametrize(
    ("what", "dim"), [("channels", -1), ("channels", 2), ("tokens", -2), ("tokens", 0)]
)
def test_entries_follow_a_dimension_that_is_split(what: str, dim: int) -> None:
    torch.manual_seed(0)
    model = Split(what, dim).eval()
    graph = gp.capture(model, (torch.randn(2, 5, 6),), dynamic_axes={"x": {0: "B"}})
    task = gp.compile(graph, gp.Program([gp.Concatenative(at="embed:out", length=3)]))
    (entries,) = task.program.parameters()
    for batch in (2, 4):
        x = torch.randn(batch, 5, 6)
        longer = torch.cat([entries.expand(batch, -1, -1), model.embed(x)], 1)
        torch.testing.assert_close(task(x), model.rest(longer))
