"""Small sequence models of which entries cannot be inserted, or where a literal decides wrongly."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.prompt_models import SAME, WIDTH, Prompted, attended


class Mixer(Prompted):
    """A weight as large as the tokens are many."""

    def make(self) -> None:
        self.tokens = nn.Linear(SAME, SAME)

    def body(self, x: Tensor) -> Tensor:
        return self.head(x + self.tokens(x.transpose(1, 2)).transpose(1, 2))


class Windows(Prompted):
    """Tokens are cut into windows of two."""

    def body(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        y = x.view(batch * length // 2, 2, width)
        return self.head((y + y.flip(1)).view(batch, length, width))


class Square2D(Prompted):
    """Tokens become a picture of two by two."""

    def make(self) -> None:
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)

    def body(self, x: Tensor) -> Tensor:
        y = x.transpose(1, 2).reshape(x.shape[0], WIDTH, 2, 2)
        return self.head(self.conv(y).flatten(2).transpose(1, 2))


class Table(Prompted):
    """Learnt positions of exactly the tokens, added behind the place."""

    def make(self) -> None:
        self.positions = nn.Parameter(torch.randn(1, SAME, WIDTH))

    def body(self, x: Tensor) -> Tensor:
        return self.head(attended(x + self.positions))


class RotaryTable(Prompted):
    """Cosines of exactly the tokens, which multiply."""

    def make(self) -> None:
        self.register_buffer("cos", torch.randn(SAME, WIDTH))

    def body(self, x: Tensor) -> Tensor:
        return self.head(attended(x * self.cos))


class BiasTable(Prompted):
    """Biases of exactly the pairs of tokens, by an index that is a table."""

    def make(self) -> None:
        self.bias = nn.Parameter(torch.randn(9, SAME))
        place = torch.arange(SAME)
        self.register_buffer("index", place[None, :] - place[:, None] + SAME)

    def body(self, x: Tensor) -> Tensor:
        bias = self.bias[self.index.view(-1)].view(SAME, SAME, -1).permute(2, 0, 1)
        return self.head(attended(x, bias[None]))


class InBatch(Prompted):
    """Tokens were folded into the batch in front of the place."""

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        y = self.place(x.flatten(0, 1)).tanh()
        return self.head(y.view(x.shape[0], x.shape[1], -1).mean(1))


class Sibling(Prompted):
    """The value is read around the place as well."""

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        return self.head(x + attended(self.place(x)))


class Unbound(Prompted):
    """Every token is taken out by itself."""

    def body(self, x: Tensor) -> Tensor:
        return self.head(sum(x.unbind(1)))


class Halves(Prompted):
    """Tokens are split into pieces of two."""

    def body(self, x: Tensor) -> Tensor:
        left, right = x.split(2, 1)
        return self.head(left + right)


class Joined(Prompted):
    """Tokens become one vector, which a weight takes."""

    def make(self) -> None:
        self.all = nn.Linear(SAME * WIDTH, 5)

    def body(self, x: Tensor) -> Tensor:
        return self.all(x.flatten(1))


class Normalised(Prompted):
    """A norm over tokens and width."""

    def make(self) -> None:
        self.norm = nn.LayerNorm((SAME, WIDTH))

    def body(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x))


REFUSED: tuple[Callable[[], Prompted], ...] = (
    Mixer,
    Windows,
    Square2D,
    Table,
    RotaryTable,
    BiasTable,
    InBatch,
    Sibling,
    Unbound,
    Halves,
    Joined,
    Normalised,
)


class Divided(Prompted):
    """A mean written as a quotient: the length is a number in the graph."""

    def body(self, x: Tensor) -> Tensor:
        return self.head(x.sum(1) / x.shape[1])


class Scaled(Prompted):
    """Positions in units of the length."""

    def body(self, x: Tensor) -> Tensor:
        return self.head(x * (torch.arange(x.shape[1]) / x.shape[1])[:, None])


class Reversed(Prompted):
    """Read backwards at positions."""

    def body(self, x: Tensor) -> Tensor:
        return self.head(x[:, torch.arange(x.shape[1] - 1, -1, -1)])


class Taken(Prompted):
    """Read at positions that are all there are."""

    def body(self, x: Tensor) -> Tensor:
        return self.head(x.index_select(1, torch.arange(x.shape[1])).mean(1))


class LastByNumber(Prompted):
    """The last token, by its number."""

    def body(self, x: Tensor) -> Tensor:
        return self.head(x[:, x.shape[1] - 1])


class AllButLast(Prompted):
    """All tokens but the last, by the length."""

    def body(self, x: Tensor) -> Tensor:
        return self.head(x[:, : x.shape[1] - 1].mean(1))


class PooledByLength(Prompted):
    """Pooled by a window as long as the sequence, which tracing fixes."""

    def body(self, x: Tensor) -> Tensor:
        return self.head(functional.avg_pool1d(x.transpose(1, 2), x.shape[1])[..., 0])


class Padded(Prompted):
    """Padded to twice the length."""

    def body(self, x: Tensor) -> Tensor:
        return self.head(functional.pad(x, (0, 0, 0, x.shape[1])).mean(1))


class PaddedUp(Prompted):
    """Zeros up to sixteen entries; as they are counted, more than that would be cut off."""

    def body(self, x: Tensor) -> Tensor:
        return self.head(attended(functional.pad(x, (0, 0, 0, 16 - x.shape[1]))))


class Rolled(Prompted):
    """Turned by the length, which changes nothing."""

    def body(self, x: Tensor) -> Tensor:
        weights = torch.arange(x.shape[1] * 2)[:, None]
        return self.head((torch.cat([x, x * 2], 1).roll(x.shape[1], 1) * weights).mean(1))


class SplitOff(Prompted):
    """The first token is split from the others, whose number is said."""

    def body(self, x: Tensor) -> Tensor:
        first, rest = x.split([1, x.shape[1] - 1], 1)
        return self.head(first + rest.mean(1, keepdim=True))


class OneHot(Prompted):
    """Every token is told its number by a one in as many zeros."""

    def body(self, x: Tensor) -> Tensor:
        ones = torch.eye(x.shape[1])
        return self.head(ones @ x + ones.sum(1)[:, None])


class Repeating(Prompted):
    """Repeated, and cut to the length again."""

    def body(self, x: Tensor) -> Tensor:
        return self.head(x.repeat(1, 2, 1)[:, : x.shape[1]].mean(1))


class CutToNumber(Prompted):
    """Cut to the first four, which is a number of the model's and not the length."""

    def body(self, x: Tensor) -> Tensor:
        return self.head(x[:, :SAME].mean(1))


DOUBTFUL: tuple[Callable[[], Prompted], ...] = (
    Divided,
    Scaled,
    Reversed,
    Taken,
    LastByNumber,
    AllButLast,
    PooledByLength,
    Padded,
    Rolled,
    SplitOff,
    OneHot,
    Repeating,
)
"""Models whose length, where it is fixed, may stand in the graph as a number with no sign."""
