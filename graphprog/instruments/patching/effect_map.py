"""Maps of effects, a cell for each interface and position, and how far two of them agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from graphprog.errors import DataError
from graphprog.utils.plots.answer_maps import plain
from graphprog.utils.plots.figures import Path, figure, keep

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How well one map tells the largest cells of another.

    Attributes:
        cells: number of cells that are compared, those with the largest magnitude.
        rank_correlation: Spearman's, over these cells; NaN where all are equal in a map.
        overlap: share of these cells that are among as many largest ones of the other map.
        error: mean absolute difference of the effects of these cells.
    """

    cells: int
    rank_correlation: float
    overlap: float
    error: float


@dataclasses.dataclass(frozen=True)
class EffectMap:
    """The effect of each cell, a value at one interface and position.

    Attributes:
        names: the interfaces, one for each row.
        effects: [interfaces, positions], or [interfaces, positions, heads]; one position where
            values have no positions. 1 restores the metric of the clean run, 0 changes nothing.
        clean: metric of the clean run.
        corrupt: metric of the corrupt run.
        positions: number of each position; empty if they are counted from 0, or taken together.

    Example:
        >>> found = gp.patch(language, ids[:1], ids[1:], metric=(3, 5))
        >>> len(found.names), found.effects.shape[0]
        (2, 2)
    """

    names: tuple[str, ...]
    effects: torch.Tensor
    clean: float
    corrupt: float
    positions: tuple[int, ...] = ()

    def largest(self, count: int = 10) -> list[tuple[Any, ...]]:
        """Return interface, position, head if there is one for each, and effect of some cells.

        They are those with the largest magnitude.
        """
        order = self.effects.flatten().abs().argsort(descending=True)[:count]
        found = []
        for cell in torch.stack(torch.unravel_index(order, self.effects.shape), 1).tolist():
            row, column, *head = cell
            effect = float(self.effects[tuple(cell)])
            found.append((self.names[row], self._position(column), *head, effect))
        return found

    def _position(self, column: int) -> int:
        return self.positions[column] if self.positions else column

    def agreement(self, estimate: EffectMap, largest: int = 20) -> Agreement:
        """Compare an estimate, such as one by attribution, with this map on its largest cells.

        Args:
            estimate: a map of the same cells.
            largest: number of cells; of those with an effect other than zero.

        Raises:
            DataError: the maps have other cells, or no cell has an effect.

        Example:
            >>> two = {"metric": (3, 5), "at": "hidden[*]"}
            >>> found = gp.patch(language, ids[:1], ids[1:], **two)
            >>> found.agreement(gp.attribute(language, ids[:1], ids[1:], **two), 4).cells
            4
        """
        if (
            self.names != estimate.names
            or self.effects.shape != estimate.effects.shape
            or (self.positions and estimate.positions and self.positions != estimate.positions)
        ):
            raise DataError(
                f"the maps have other cells: {len(self.names)} interfaces and "
                f"{list(self.effects.shape)}, {len(estimate.names)} and "
                f"{list(estimate.effects.shape)}",
                ["make both with the same inputs, at=, positions= and heads="],
            )
        found, guessed = (one.effects.flatten().double() for one in (self, estimate))
        count = min(largest, int(found.count_nonzero()))
        if count < 1:
            raise DataError("no cell of the map has an effect, so that there is nothing to compare")
        top, others = (one.abs().topk(count).indices for one in (found, guessed))
        ranks = torch.stack([_ranks(one[top]) for one in (found, guessed)])
        return Agreement(
            count,
            float(torch.corrcoef(ranks)[0, 1]) if count > 1 else float("nan"),
            float(torch.isin(top, others).double().mean()),
            float((found[top] - guessed[top]).abs().mean()),
        )

    def plot(self, path: Path | None = None, tokens: Sequence[str] | None = None) -> Figure:
        """Plot the effects as a map; written to ``path``, if given.

        Args:
            path: file of the picture.
            tokens: label of each position of the inputs.

        Raises:
            DataError: there are not as many labels as positions.
        """
        cells = self.effects if self.effects.ndim == 2 else self.effects.flatten(1)
        wide = min(max(6.0, 0.42 * cells.shape[1]), 24.0)
        drawing, (axis,) = figure(1, wide, max(3.0, 0.3 * len(self.names) + 1.4))
        bound = max(float(cells.abs().max()), 1e-12)
        image = axis.imshow(cells.numpy(), cmap="RdBu_r", vmin=-bound, vmax=bound, aspect="auto")
        axis.set_yticks(range(len(self.names)), self.names)
        columns = range(self.effects.shape[1])
        if tokens is not None:
            last = max(self.positions, default=len(columns) - 1)
            if len(tokens) <= last or not (self.positions or len(tokens) == len(columns)):
                raise DataError(
                    f"{len(tokens)} tokens are no labels of the {last + 1} positions of the map",
                    ["tokens= has a label for each position of the inputs"],
                )
            heads = cells.shape[1] // len(columns)
            labels = [plain(tokens[self._position(column)]) for column in columns]
            axis.set_xticks(
                [heads * column + (heads - 1) / 2 for column in columns], labels, rotation=60
            )
        axis.set_xlabel("position" if self.effects.ndim == 2 else "position and head")
        drawing.colorbar(image, ax=axis, label="effect on the metric")
        return keep(drawing, path)


def _ranks(values: torch.Tensor) -> torch.Tensor:
    """Return the rank of each value; equal ones share the mean of theirs."""
    below, same = values[:, None] > values, values[:, None] == values
    return below.sum(1) + (same.sum(1) + 1) / 2
