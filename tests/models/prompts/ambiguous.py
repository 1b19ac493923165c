"""Models in which the length, where it is fixed, is a number that nothing tells from others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.models.prompts.models import SAME, WIDTH, Prompted, attended


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


class FromBack(Prompted):
    """As many of the last tokens as there are."""

    def body(self, x: Tensor) -> Tensor:
        return self.head(x[:, -x.shape[1] :])


class FirstFromBack(Prompted):
    """The first token, counted from the end."""

    def body(self, x: Tensor) -> Tensor:
        return self.head(x[:, -x.shape[1]])


class OwnFromBack(Prompted):
    """The tokens behind others that the model puts in front."""

    def make(self) -> None:
        self.others = nn.Parameter(torch.randn(1, 3, WIDTH))

    def body(self, x: Tensor) -> Tensor:
        y = attended(torch.cat([self.others.expand(x.shape[0], -1, -1), x], 1))
        return self.head(y[:, -x.shape[1] :]) + self.head(y[:, : -x.shape[1]]).mean(1, True)


class RolledBack(Prompted):
    """Turned back by the length."""

    def body(self, x: Tensor) -> Tensor:
        weights = torch.arange(x.shape[1] * 2)[:, None]
        return self.head((torch.cat([x, x * 2], 1).roll(-x.shape[1], 1) * weights).mean(1))


class Narrowed(Prompted):
    """All tokens but the first, by their number."""

    def body(self, x: Tensor) -> Tensor:
        return self.head(x.narrow(1, 1, x.shape[1] - 1).mean(1))


class Stepped(Prompted):
    """The first token of each length, which is one."""

    def body(self, x: Tensor) -> Tensor:
        return self.head(x[:, :: x.shape[1]].mean(1))


class LastByEquality(Prompted):
    """The last token is the one whose position is the length less one."""

    def body(self, x: Tensor) -> Tensor:
        last = torch.arange(x.shape[1]) == x.shape[1] - 1
        return self.head(x * last[:, None])


class CountedDown(Prompted):
    """Distances to the last token."""

    def body(self, x: Tensor) -> Tensor:
        return self.head(x * (x.shape[1] - 1 - torch.arange(x.shape[1]))[:, None])


class Averaged(Prompted):
    """A triangle of ones mixes the tokens: its rows are as many, and nothing asks for them."""

    def body(self, x: Tensor) -> Tensor:
        return self.head(torch.ones(x.shape[1], x.shape[1]).tril() @ x)


class Diagonal(Prompted):
    """A product with the identity, made of as many ones."""

    def body(self, x: Tensor) -> Tensor:
        return self.head(torch.ones(x.shape[1]).diag() @ x)


class DividedByFloat(Prompted):
    """A mean written as a quotient by a float."""

    def body(self, x: Tensor) -> Tensor:
        return self.head(x.sum(1) / float(x.shape[1]))


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
    FromBack,
    FirstFromBack,
    OwnFromBack,
    RolledBack,
    Narrowed,
    Stepped,
    LastByEquality,
    CountedDown,
    Averaged,
    Diagonal,
    DividedByFloat,
)
"""Models whose length, where it is fixed, may stand in the graph as a number with no sign."""
