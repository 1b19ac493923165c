"""Models with positions and masks that are computed for the tokens, of numbers or from tables."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.models.prompts.models import SAME, WIDTH, Prompted, attended, heads_of


class SquarePositions(Prompted):
    """Positions from a longer table, of a square of the table's width."""

    width = SAME

    def make(self) -> None:
        self.positions = nn.Embedding(20, SAME)

    def body(self, x: Tensor) -> Tensor:
        return self.head((x + self.positions(torch.arange(x.shape[1]))).tanh())


class SlicedPositions(Prompted):
    """Positions are a slice of a parameter."""

    def make(self) -> None:
        self.positions = nn.Parameter(torch.randn(1, 20, WIDTH))

    def body(self, x: Tensor) -> Tensor:
        return self.head(attended(x + self.positions[:, : x.shape[1]]))


class Rotary(Prompted):
    """Angles from a count of the tokens."""

    def make(self) -> None:
        self.register_buffer("rates", torch.linspace(0.1, 1.0, WIDTH))

    def body(self, x: Tensor) -> Tensor:
        angle = torch.outer(torch.arange(x.shape[1]).float(), self.rates)
        return self.head(attended(x * angle.cos() + x.roll(1, -1) * angle.sin()))


class RotarySliced(Prompted):
    """Angles from a longer table."""

    def make(self) -> None:
        self.register_buffer("cos", torch.randn(20, WIDTH))

    def body(self, x: Tensor) -> Tensor:
        return self.head(attended(x * self.cos[: x.shape[1]][None]))


class CausalFlag(Prompted):
    def body(self, x: Tensor) -> Tensor:
        return self.head(attended(x, causal=True))


class CausalTriangle(Prompted):
    """A mask of ones, its lower triangle."""

    def body(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        return self.head(attended(x, torch.ones(length, length).tril().bool()))


class CausalFull(Prompted):
    """A mask of minus infinity, its upper triangle, added to the products."""

    def body(self, x: Tensor) -> Tensor:
        mask = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)
        q = heads_of(x)
        weights = (q @ q.transpose(-1, -2) + mask[None, None]).softmax(-1)
        return self.head((weights @ q).transpose(1, 2).flatten(2))


class CausalCompared(Prompted):
    """A mask from comparing positions, expanded to the batch."""

    def body(self, x: Tensor) -> Tensor:
        place = torch.arange(x.shape[1])
        mask = (place[None, :] <= place[:, None])[None, None]
        return self.head(attended(x, mask.expand(x.shape[0], 1, -1, -1)))


class CausalTable(Prompted):
    """A mask cut out of a larger triangle."""

    def make(self) -> None:
        self.register_buffer("triangle", torch.ones(1, 1, 20, 20).tril().bool())

    def body(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        return self.head(attended(x, self.triangle[:, :, :length, :length]))


class CausalShifted(Prompted):
    """Rows of the triangle that belong to the last queries of as many keys."""

    def make(self) -> None:
        self.register_buffer("triangle", torch.ones(1, 1, 20, 20).tril().bool())

    def body(self, x: Tensor) -> Tensor:
        queries, keys = heads_of(x), heads_of(self.mix(x))
        rows, columns = queries.size(-2), keys.size(-2)
        mask = self.triangle[:, :, columns - rows : columns, :columns]
        y = functional.scaled_dot_product_attention(queries, keys, keys, mask)
        return self.head(y.transpose(1, 2).flatten(2))


class FilledMask(Prompted):
    """Where and masked_fill with a mask that is built in place."""

    def body(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        q = heads_of(x)
        mask = torch.zeros(length, length, dtype=torch.bool)
        mask = mask | (torch.arange(length)[:, None] < torch.arange(length))
        weights = (q @ q.mT).masked_fill(mask, -1e9).softmax(-1)
        return self.head((weights @ q).transpose(1, 2).flatten(2))


class Distances(Prompted):
    """A bias by distance, computed (ALiBi) and looked up in a table by bucket (T5)."""

    def make(self) -> None:
        self.buckets = nn.Embedding(3, SAME)

    def body(self, x: Tensor) -> Tensor:
        place = torch.arange(x.shape[1])
        gap = place[None, :] - place[:, None]
        slopes = torch.arange(1, SAME + 1)[:, None, None] * 0.1
        bias = self.buckets(gap.clamp(-1, 1) + 1).permute(2, 0, 1) - slopes * gap.abs()
        return self.head(attended(x, bias[None]))


MASKED: tuple[Callable[[], Prompted], ...] = (
    SquarePositions,
    SlicedPositions,
    Rotary,
    RotarySliced,
    CausalFlag,
    CausalTriangle,
    CausalFull,
    CausalCompared,
    CausalTable,
    CausalShifted,
    FilledMask,
    Distances,
)
