"""The cells of a map, and the changes of values that patch them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import torch

from graphprog.errors import DataError

Cell = tuple[int, int | None, int | None]
"""Number of the interface, position, head; None for all of them."""


class Grid:
    """Cells of values at some interfaces.

    Args:
        values: what is patched into a run, one row, by name of the interface.
        others: what the run has there by itself.
        axes: axis of the positions of each value; None where it has none.
        by_position: whether each position is a cell.
        by_head: whether each head of values [B, H, S, d] is a cell.
        window: number of consecutive interfaces that a cell patches.

    Raises:
        DataError: the values differ in their number of positions or heads.
    """

    def __init__(
        self,
        values: Mapping[str, torch.Tensor],
        others: Mapping[str, torch.Tensor],
        axes: Mapping[str, int | None],
        by_position: bool,
        by_head: bool,
        window: int,
    ) -> None:
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
        self._differs = [self._differing(name, others[name]) for name in values]

    def _differing(self, name: str, other: torch.Tensor) -> torch.Tensor:
        """Return which positions and heads of a value are not the same already: bool [S, H]."""
        differs = self.values[name] != other
        own = ((self.axes[name], self.lengths[name]), (1, self.heads[name]))
        kept = [axis for axis, size in own if axis is not None and size > 1]
        moved = differs.movedim(kept, [*range(len(kept))])
        return moved.reshape(self.lengths[name], self.heads[name], -1).any(2).cpu()

    def cells(self) -> Iterator[Cell]:
        """Yield every cell, in the order of the map."""
        name = next(iter(self.values))
        for number, position, head in itertools.product(
            range(len(self.values)), range(self.lengths[name]), range(self.heads[name])
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
        name = next(iter(self.values))
        sizes = (len(self.values), self.lengths[name], self.heads[name])
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
