"""Small sequence models, each with one thing that is hard to lengthen.

Every model computes ``body(place(table(ids)), *sides)``, so that calling ``body`` with a longer
sequence is the reference for entries inserted at ``place``. The number of tokens, of heads, of
entries of a head, and the example's batch are all equal, so that no length tells what it is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

SAME = 4
WIDTH = SAME * SAME
VOCABULARY = 50
LAST = VOCABULARY - 1


class Prompted(nn.Module):
    """A table of tokens, a place to insert at, and a body that reads sizes off its argument."""

    width = WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, self.width)
        self.place = nn.Identity()
        self.mix = nn.Linear(self.width, self.width)
        self.head = nn.Linear(self.width, 5)
        self.make()

    def make(self) -> None:
        """Make what only this model has."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.body(self.place(self.table(ids)))

    def body(self, x: Tensor, *sides: Tensor) -> Tensor:
        """What follows the place."""
        return self.head(x)


def heads_of(x: Tensor) -> Tensor:
    """[B, S, d] -> [B, heads, S, entries]."""
    return x.view(x.shape[0], x.shape[1], SAME, SAME).transpose(1, 2)


def attended(x: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    q = heads_of(x)
    y = functional.scaled_dot_product_attention(q, q.tanh(), q.sin(), mask, is_causal=causal)
    return y.transpose(1, 2).reshape(x.shape)


def made(kind: Callable[[], nn.Module]) -> nn.Module:
    """A model with the same random weights each time."""
    torch.manual_seed(0)
    return kind().eval().requires_grad_(False)


def some_ids(batch: int = SAME, length: int = SAME) -> Tensor:
    generator = torch.Generator().manual_seed(10 * batch + length)
    return torch.randint(1, LAST, (batch, length), generator=generator)
