"""Small sequence models with masks, positions and other inputs beside the tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.models.prompts.models import (
    LAST,
    SAME,
    VOCABULARY,
    WIDTH,
    Prompted,
    attended,
    heads_of,
    some_ids,
)


class Sided(Prompted):
    """A model of ids and one side input.

    Attributes:
        axes: axes of the side input that are the sequence.
        fill: what stands there for an inserted entry.
    """

    axes: tuple[int, ...] = (1,)
    fill: float = 1

    def forward(self, ids: Tensor, side: Tensor) -> Tensor:
        return self.body(self.place(self.table(ids)), side)

    def side(self, batch: int = SAME, length: int = SAME) -> Tensor:
        """A mask whose rows are of different lengths; all of them are 2 at least."""
        count = 2 + (torch.arange(batch) + length) % (length - 1)
        return (torch.arange(length) < count[:, None]).long()


class BoolMask(Sided):
    def side(self, batch: int = SAME, length: int = SAME) -> Tensor:
        return super().side(batch, length).bool()

    def body(self, x: Tensor, side: Tensor) -> Tensor:
        return self.head(attended(x, side[:, None, None, :]))


class IntMask(Sided):
    """Ones and zeros become an additive mask."""

    def body(self, x: Tensor, side: Tensor) -> Tensor:
        return self.head(attended(x, (1 - side[:, None, None, :].to(x.dtype)) * -1e9))


class CausalMask(Sided):
    """Padding and a triangle together, expanded to every head."""

    def body(self, x: Tensor, side: Tensor) -> Tensor:
        batch, length = side.shape
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        mask = side[:, None, None, :].expand(batch, 1, length, length).bool() & causal
        return self.head(attended(x, torch.where(mask, 0.0, -1e9)))


class WhereMask(Sided):
    """Positions compared with positions, and the mask read at them, as new libraries do it."""

    def body(self, x: Tensor, side: Tensor) -> Tensor:
        rows = torch.arange(x.shape[1])
        batches = torch.arange(x.shape[0])[:, None, None, None]
        causal = rows[None, None, None, :] <= rows[None, None, :, None]
        padding = side.bool()[batches, rows[None, None, None, :]]
        return self.head(attended(x, causal & padding))


class AdditiveRow(Sided):
    """A float mask of shape [B, 1, 1, S]."""

    axes, fill = (3,), 0

    def side(self, batch: int = SAME, length: int = SAME) -> Tensor:
        return (1.0 - super().side(batch, length)[:, None, None, :]) * -1e9

    def body(self, x: Tensor, side: Tensor) -> Tensor:
        return self.head(attended(x, side))


class AdditiveSquare(Sided):
    """A float mask of shape [B, 1, S, S], added to the products."""

    axes, fill = (2, 3), 0

    def side(self, batch: int = SAME, length: int = SAME) -> Tensor:
        generator = torch.Generator().manual_seed(length)
        return torch.randn(batch, 1, length, length, generator=generator)

    def body(self, x: Tensor, side: Tensor) -> Tensor:
        q = heads_of(x)
        return self.head(((q @ q.mT + side).softmax(-1) @ q).transpose(1, 2).flatten(2))


class Packed(Sided):
    """Numbers of segments: only tokens of one segment see each other."""

    def side(self, batch: int = SAME, length: int = SAME) -> Tensor:
        return 2 - super().side(batch, length)

    def body(self, x: Tensor, side: Tensor) -> Tensor:
        return self.head(attended(x, (side[:, :, None] == side[:, None, :])[:, None]))


class CountedPositions(Sided):
    """Positions count the tokens that the mask has (OPT)."""

    def make(self) -> None:
        self.positions = nn.Embedding(20, WIDTH)

    def body(self, x: Tensor, side: Tensor) -> Tensor:
        places = side.cumsum(1) * side + 1
        return self.head(attended(x + self.positions(places), side[:, None, None, :].bool()))


class MeanOfMasked(Sided):
    def body(self, x: Tensor, side: Tensor) -> Tensor:
        weights = side[..., None].float()
        return self.head((attended(x) * weights).sum(1) / weights.sum(1).clamp(min=1e-9))


class LastOfMasked(Sided):
    """The last token that the mask has."""

    def body(self, x: Tensor, side: Tensor) -> Tensor:
        return self.head(attended(x, side[:, None, None].bool()))[
            torch.arange(x.shape[0]), side.sum(1) - 1
        ]


class TokenTypes(Sided):
    fill = 0

    def make(self) -> None:
        self.types = nn.Embedding(2, WIDTH)

    def body(self, x: Tensor, side: Tensor) -> Tensor:
        return self.head(attended(x + self.types(side)))


class Columns(Sided):
    """Three numbers of each entry, looked up by column, after views and shifts."""

    fill = 0

    def side(self, batch: int = SAME, length: int = SAME) -> Tensor:
        return some_ids(batch * length, 3).reshape(batch, length, 3) % 7

    def make(self) -> None:
        self.columns = nn.Embedding(9, WIDTH)

    def body(self, x: Tensor, side: Tensor) -> Tensor:
        low, high = side[..., 0], side[..., 1]
        x = x + self.columns(low + 1) + self.columns.weight[high] + self.columns(high.clamp(0, 5))
        return self.head(attended(x + self.columns(side.transpose(1, 2)[:, 2])))


class KeyPadding(Sided):
    """True for what is hidden, as PyTorch's encoders have it."""

    fill = 0

    def side(self, batch: int = SAME, length: int = SAME) -> Tensor:
        return super().side(batch, length) == 0

    def body(self, x: Tensor, side: Tensor) -> Tensor:
        hidden = torch.zeros(side.shape).masked_fill(side, float("-inf"))
        return self.head(attended(x, hidden[:, None, None]))


class MaskedWords(Sided):
    """Ids whose padding is 0 are the mask, and are looked up."""

    fill = 1

    def side(self, batch: int = SAME, length: int = SAME) -> Tensor:
        return some_ids(batch, length) * super().side(batch, length)

    def make(self) -> None:
        self.words = nn.Embedding(VOCABULARY, WIDTH)

    def forward(self, ids: Tensor, side: Tensor) -> Tensor:
        return self.body(self.place(self.table(side)), side)

    def body(self, x: Tensor, side: Tensor) -> Tensor:
        return self.head(attended(x, (side != 0)[:, None, None]))


class LastWord(MaskedWords):
    """The last token that is not padding, found among the ids."""

    def body(self, x: Tensor, side: Tensor) -> Tensor:
        found = (torch.arange(side.shape[-1]) * (side != 0).int()).argmax(-1)
        return self.head(attended(x))[torch.arange(x.shape[0]), found]


class EndOfText(MaskedWords):
    """The first end of text among the ids (CLIP)."""

    def side(self, batch: int = SAME, length: int = SAME) -> Tensor:
        return some_ids(batch, length).index_fill(1, torch.tensor([length - 2]), LAST)

    def body(self, x: Tensor, side: Tensor) -> Tensor:
        found = (side.to(torch.int) == LAST).int().argmax(-1)
        return self.head(attended(x, causal=True)[torch.arange(x.shape[0]), found])


class Largest(MaskedWords):
    """The largest id is the end of text (older CLIP)."""

    def body(self, x: Tensor, side: Tensor) -> Tensor:
        return self.head(x[torch.arange(x.shape[0]), side.argmax(-1)])


SIDED: tuple[Callable[[], Sided], ...] = (
    BoolMask,
    IntMask,
    CausalMask,
    WhereMask,
    AdditiveRow,
    AdditiveSquare,
    CountedPositions,
    MeanOfMasked,
    LastOfMasked,
    TokenTypes,
    Columns,
    KeyPadding,
    MaskedWords,
    LastWord,
    EndOfText,
    Largest,
)
"""Models whose side input can be lengthened without being told what it means."""


class PositionIds(Sided):
    """Positions are an input, which are looked up."""

    def side(self, batch: int = SAME, length: int = SAME) -> Tensor:
        return torch.arange(length).expand(batch, -1).contiguous()

    def make(self) -> None:
        self.positions = nn.Embedding(20, WIDTH)

    def body(self, x: Tensor, side: Tensor) -> Tensor:
        return self.head(attended(x + self.positions(side)))


class Weights(Sided):
    """Floats that multiply: nothing tells what they are for an inserted entry."""

    def side(self, batch: int = SAME, length: int = SAME) -> Tensor:
        return torch.rand(batch, length, generator=torch.Generator().manual_seed(length))

    def body(self, x: Tensor, side: Tensor) -> Tensor:
        return self.head(attended(x * side[..., None]))


class Features(Sided):
    """As many features of a row as there are tokens, which are no tokens."""

    axes = ()

    def side(self, batch: int = SAME, length: int = SAME) -> Tensor:
        return torch.randn(batch, SAME, generator=torch.Generator().manual_seed(batch))

    def make(self) -> None:
        self.features = nn.Linear(SAME, WIDTH)

    def body(self, x: Tensor, side: Tensor) -> Tensor:
        return self.head(functional.relu(attended(x) + self.features(side)[:, None]))
