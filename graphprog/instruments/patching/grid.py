"""The cells of a map, and the changes of values that patch them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch

from graphprog.errors import DataError, ProgramError

Positions = Literal["each", "all"] | int | Sequence[int]
Cell = tuple[int, int | None, int | None]
"""Number of the interface, position, head; None for all of them."""


class Grid:
    """Cells of values at some interfaces.

    Args:
        values: what is patched into a run, one row, by name of the interface.
        others: what the run has there by itself.
        axes: axis of the positions of each value; None where it has none.
        positions: whether each position is a cell, or all together are one; or those that are
            cells, counted from the end if negative.
        by_head: whether each head of values [B, H, S, d] is a cell.
        window: number of consecutive interfaces that a cell patches.

    Raises:
        DataError: the values differ in their number of positions or heads, or there is no such
            position.
    """

    def __init__(
        self,
        values: Mapping[str, torch.Tensor],
        others: Mapping[str, torch.Tensor],
        axes: Mapping[str, int | None],
        positions: Positions,
        by_head: bool,
        window: int = 1,
    ) -> None:
        by_position = positions != "all"
        self.values = values
        self.axes = axes
        self.window = window
        self.lengths = {
            name: value.shape[axes[name] or 0] if by_position and axes[name] else 1
            for name, value in values.items()
        }
        heads = {name: by_head and axes[name] == 2 for name in values}
        self.heads = {name: values[name].shape[1] if heads[name] else 1 for name in values}
        for kind, sizes in (("positions", self.lengths), ("heads", self.heads)):
            if len(set(sizes.values())) > 1:
                raise DataError(
                    f"the interfaces differ in their number of {kind}: {sizes}",
                    ["patch them in calls of their own", 'positions="all"'],
                )
        self.by_position, self.by_head = by_position, any(heads.values())
        length = next(iter(self.lengths.values()))
        self.positions = _checked(positions, length)
        self.named = self.positions if by_position else ()
        self._differs = [self._differing(name, others[name]) for name in values]

    def _differing(self, name: str, other: torch.Tensor) -> torch.Tensor:
        """Return which positions and heads of a value are not the same already: bool [S, H]."""
        return self._by_cell(name, self.values[name] != other).any(2).cpu()

    def _by_cell(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """Return a value of one row by position and head, [S, H, ...]."""
        own = ((self.axes[name], self.lengths[name]), (1, self.heads[name]))
        kept = [axis for axis, size in own if axis is not None and size > 1]
        moved = value.movedim(kept, [*range(len(kept))])
        return moved.reshape(self.lengths[name], self.heads[name], -1)

    def sums(self, products: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the sum of the entries of each cell, as a map; a product for each interface."""
        rows = [
            self._by_cell(name, product).sum(2)[list(self.positions)]
            for name, product in zip(self.values, products, strict=True)
        ]
        return self.shaped(torch.stack(rows))

    def cells(self) -> Iterator[Cell]:
        """Yield every cell, in the order of the map."""
        heads = range(next(iter(self.heads.values())))
        for number, position, head in itertools.product(
            range(len(self.values)), self.positions, heads
        ):
            yield number, position if self.by_position else None, head if self.by_head else None

    def changes(self, cell: Cell) -> bool:
        """Whether a cell patches a value that the run does not have by itself."""
        centre, position, head = cell
        return any(
            bool(self._differs[number][position or 0, head or 0]) for number in self._around(centre)
        )

    def shaped(self, effects: torch.Tensor) -> torch.Tensor:
        """Return the effects of all cells as a map."""
        sizes = (len(self.values), len(self.positions), next(iter(self.heads.values())))
        return effects.reshape(sizes if self.by_head else sizes[:2])

    def swaps(self, batch: Sequence[Cell]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return mask and value for the interfaces of a batch: row i patches cell i."""
        found = {}
        for number, (name, value) in enumerate(self.values.items()):
            if not any(number in self._around(centre) for centre, _, _ in batch):
                continue
            mask = torch.zeros(len(batch), *(1,) * (value.ndim - 1), dtype=torch.bool)
            axis = self.axes[name]
            if self.by_position and axis:
                mask = mask.repeat_interleave(value.shape[axis], axis)
            if self.by_head:
                mask = mask.repeat_interleave(value.shape[1], 1)
            for row, (centre, position, head) in enumerate(batch):
                if number in self._around(centre):
                    at = mask[row]
                    at = at[head] if head is not None else at
                    if axis is not None and position is not None:
                        at = at.select(axis - 1 - (head is not None), position)
                    at.fill_(True)
            found[name] = (mask.to(value.device), value)
        return found

    def _around(self, centre: int) -> range:
        """Return the numbers of the interfaces that a cell patches."""
        start = centre - (self.window - 1) // 2
        return range(max(start, 0), min(start + self.window, len(self.values)))


def _checked(positions: Positions, length: int) -> tuple[int, ...]:
    """Return the positions that are cells, as numbers from 0."""
    if isinstance(positions, str):
        if positions not in ("each", "all"):
            raise ProgramError(f"positions must be 'each', 'all' or indices, not {positions!r}")
        return (*range(length),)
    chosen = (positions,) if isinstance(positions, int) else tuple(positions)
    wrong = [one for one in chosen if not -length <= one < length]
    if wrong or not chosen:
        raise DataError(
            f"there are {length} positions, and no position {wrong or chosen}",
            ["count from 0, or from the end with negative numbers"],
        )
    return tuple(one % length for one in chosen)
