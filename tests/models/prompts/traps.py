"""Small sequence models of which entries cannot be inserted, or where a literal decides wrongly."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.models.prompts.models import SAME, WIDTH, Prompted, attended


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
    """Learned positions of exactly the tokens, added behind the place."""

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


class SharedTable(Prompted):
    """One table that is added, and multiplies further on."""

    def make(self) -> None:
        self.positions = nn.Parameter(torch.randn(1, SAME, WIDTH))

    def body(self, x: Tensor) -> Tensor:
        return self.head(attended(x + self.positions) * self.positions)


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


class Normalized(Prompted):
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
    Normalized,
)
