"""What an operation reads of a value: a stretch, entries, or entries of each row of a batch."""

from __future__ import annotations

import dataclasses

import torch
from torch import fx

from graphprog.ir.sizes import expression


@dataclasses.dataclass(frozen=True, eq=False)
class Read:
    """Some entries along an axis, of which there are more.

    Attributes:
        axis: the axis.
        length: the number of entries.
        span: start and end of a stretch; None if there is an index.
        index: numbers of entries, not negative: int64 [L], or [B, L] of each row of a batch.
        by_row: whether each row of the batch has its own entries.
        stays: whether it is selected from this value, and from no value before it.
    """

    axis: int
    length: int | torch.SymInt
    span: tuple[int, int] | None = None
    index: fx.Node | None = None
    by_row: bool = False
    stays: bool = False

    @property
    def _key(self) -> tuple[object, ...]:
        return self.axis, expression(self.length), self.span, self.index, self.by_row, self.stays

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Read) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def along(self, axis: int, stays: bool = False) -> Read:
        """Return the same entries along another axis."""
        return dataclasses.replace(self, axis=axis, stays=stays)


@dataclasses.dataclass(frozen=True)
class Selection:
    """What a node selects that does nothing else.

    Attributes:
        value: the value that it selects from.
        read: the entries.
        keeps: whether their axis stays in the result.
    """

    value: fx.Node
    read: Read
    keeps: bool
