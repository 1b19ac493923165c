"""Activation patching: which values of a clean run restore its answer in a corrupt run."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import torch

from graphprog.analysis.value_axes import position_axis
from graphprog.errors import DataError, ProgramError
from graphprog.instruments.metric import Metric, metric_of
from graphprog.instruments.places import Inputs, Model, Places, flat_inputs, graph_of, places_of
from graphprog.instruments.stream import progress_bar
from graphprog.instruments.swap import Swapped
from graphprog.ir.graph import Graph
from graphprog.utils.plots.figures import Path, figure, keep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Into = Literal["corrupt", "clean"]
Cell = tuple[int, int | None, int | None]
"""Number of the interface, position, head; None for all of them."""


@dataclasses.dataclass(frozen=True)
class EffectMap:
    """The effect of each cell, a value at one interface and position.

    Attributes:
        names: the interfaces, one for each row.
        effects: [interfaces, positions], or [interfaces, positions, heads]; one position where
            values have no positions. 1 restores the metric of the clean run, 0 changes nothing.
        clean: metric of the clean run.
        corrupt: metric of the corrupt run.

    Example:
        >>> found = gp.patch(language, ids[:1], ids[1:], metric=(3, 5))
        >>> len(found.names), found.effects.shape[0]
        (2, 2)
    """

    names: tuple[str, ...]
    effects: torch.Tensor
    clean: float
    corrupt: float

    def largest(self, count: int = 10) -> list[tuple[str, int, float]]:
        """Return interface, position and effect of the cells with the largest magnitude."""
        cells = self.effects if self.effects.ndim == 2 else self.effects.amax(2)
        order = cells.flatten().abs().argsort(descending=True)[:count].tolist()
        width = cells.shape[1]
        return [
            (self.names[one // width], one % width, float(cells[one // width, one % width]))
            for one in order
        ]

    def plot(self, path: Path | None = None, tokens: Sequence[str] | None = None) -> Figure:
        """Plot the effects as a map; written to ``path``, if given.

        Args:
            path: file of the picture.
            tokens: label of each position.
        """
        cells = self.effects if self.effects.ndim == 2 else self.effects.flatten(1)
        wide = min(max(6.0, 0.42 * cells.shape[1]), 24.0)
        drawing, (axis,) = figure(1, wide, max(3.0, 0.3 * len(self.names) + 1.4))
        bound = max(float(cells.abs().max()), 1e-12)
        image = axis.imshow(cells.numpy(), cmap="RdBu_r", vmin=-bound, vmax=bound, aspect="auto")
        axis.set_yticks(range(len(self.names)), self.names)
        if tokens is not None and len(tokens) == cells.shape[1]:
            axis.set_xticks(range(len(tokens)), [repr(t)[1:-1] for t in tokens], rotation=60)
        axis.set_xlabel("position" if self.effects.ndim == 2 else "position and head")
        drawing.colorbar(image, ax=axis, label="effect on the metric")
        return keep(drawing, path)


def patch(
    model: Model,
    clean: Inputs,
    corrupt: Inputs,
    at: Places = "hidden[*]",
    *,
    metric: Metric,
    positions: Literal["each", "all"] = "each",
    heads: Literal["each", "all"] = "all",
    window: int = 1,
    through: str | None = None,
    into: Into = "corrupt",
    batch_size: int = 64,
    progress: bool | None = None,
) -> EffectMap:
    """Patch values of one run into another, cell by cell (causal tracing).

    For every cell, one interface and position, the corrupt inputs are run with the clean value
    there, and the metric is compared: ``(patched - corrupt) / (clean - corrupt)``. It follows Meng
    et al., 2022 (arXiv:2202.05262). All cells run through one graph, a batch of them at a time.

    Args:
        model: a graph or a compiled model.
        clean: inputs of the clean run, one row.
        corrupt: inputs of the corrupt run, one row of the same shape.
        at: the interfaces.
        metric: a function of the logits [B, ...] that returns [B], or two classes, right and wrong,
            for the difference of their logits at the last position.
        positions: whether each position of values [B, S, d] is a cell, or all together are one.
        heads: whether each head of values [B, H, S, d] is a cell.
        window: number of consecutive interfaces that a cell patches, centred on its own.
        through: an interface; only what reaches the outputs through its value counts.
        into: run into which values are patched; with ``"clean"``, corrupt values go into the clean
            run, and the effect is what they destroy.
        batch_size: cells of a run.
        progress: whether to show a bar; None shows it on a terminal.

    Raises:
        DataError: inputs differ in shape or have several rows, or the two runs have one metric.
        InterfaceError: a name is unknown or ambiguous.
        ProgramError: an option is unknown.

    Example:
        >>> found = gp.patch(language, ids[:1], ids[1:], at="hidden[*]", metric=(3, 5))
        >>> assert abs(float(found.effects[-1, -1]) - 1) < 1e-4  # the last value decides
    """
    _check_options(positions, heads, window, into)
    names = [at] if isinstance(at, str) else [*at]
    graph, score = graph_of(model, [*names, *([through] if through else [])]), metric_of(metric)
    places = places_of(graph, names)
    runs = two_runs(graph, clean, corrupt)
    donor, host = runs if into == "corrupt" else runs[::-1]
    targets = dict(places)
    if through:
        passage = graph.interfaces().resolve(through)
        own = (name for name, place in places.items() if place.key == passage.key)
        through = next(own, through)
        targets[through] = passage
    swapped = Swapped.of(graph, targets, [*targets])
    with torch.no_grad():
        whole = [swapped(flat) for flat in (donor, host)]
        read = len(graph.output_nodes)
        values = dict(zip(places, whole[0][read:], strict=False))
        ends = [float(score(one[0])) for one in whole]
        check_ends(ends)
        axes = {name: position_axis(graph, place) for name, place in places.items()}
        grid = _Grid(values, axes, positions == "each", heads == "each", window)
        cells, found = list(grid.cells()), []
        starts = range(0, len(cells), batch_size)
        batches = [cells[start : start + batch_size] for start in starts]
        for batch in progress_bar(batches, len(batches), "patching", progress):
            flat = [value.expand(len(batch), *value.shape[1:]) for value in host]
            results = swapped(flat, grid.swaps(batch))
            if through:
                every = torch.ones((), dtype=torch.bool, device=graph.device)
                passing = results[read + [*targets].index(through)]
                results = swapped(flat, {through: (every, passing)})
            found.append(score(results[0]))
    effects = (torch.cat(found) - ends[1]) / (ends[0] - ends[1])
    clean_end, corrupt_end = ends if into == "corrupt" else ends[::-1]
    return EffectMap(tuple(places), grid.shaped(effects.cpu()), clean_end, corrupt_end)


def _check_options(positions: str, heads: str, window: int, into: str) -> None:
    for name, value, known in (
        ("positions", positions, ("each", "all")),
        ("heads", heads, ("each", "all")),
        ("into", into, ("corrupt", "clean")),
    ):
        if value not in known:
            raise ProgramError(f"{name} must be {' or '.join(map(repr, known))}, not {value!r}")
    if window < 1:
        raise ProgramError(f"window must be 1 or more, not {window}")


def two_runs(
    graph: Graph, clean: Inputs, corrupt: Inputs
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the inputs of a clean and of a corrupt run, one row each.

    Raises:
        DataError: there are several rows, or the shapes differ.
    """
    runs = flat_inputs(graph, clean), flat_inputs(graph, corrupt)
    for name, flat in zip(("clean", "corrupt"), runs, strict=True):
        rows = {len(value) for value in flat if value.ndim}
        if rows != {1}:
            raise DataError(
                f"{name} inputs have {sorted(rows)} rows; one is needed",
                ["take one pair at a time, and average the maps"],
            )
    for one, other in zip(*runs, strict=True):
        if one.shape != other.shape:
            raise DataError(
                f"clean and corrupt inputs differ in shape: {list(one.shape)}, {list(other.shape)}",
                ["use texts of the same number of tokens"],
            )
    return runs


def check_ends(ends: Sequence[float]) -> None:
    """Check that the two runs differ in their metric.

    Raises:
        DataError: they do not.
    """
    if ends[0] == ends[1]:
        raise DataError(
            f"the metric is {ends[0]:.6g} in both runs, so that nothing can be restored",
            ["use inputs that the model answers differently", "use another metric"],
        )


class _Grid:
    """The cells of a map, and the swaps that patch them."""

    def __init__(
        self,
        values: dict[str, torch.Tensor],
        axes: dict[str, int | None],
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

    def cells(self) -> Iterator[Cell]:
        """Yield every cell, in the order of the map."""
        name = next(iter(self.values))
        for number, position, head in itertools.product(
            range(len(self.values)), range(self.lengths[name]), range(self.heads[name])
        ):
            yield number, position if self.by_position else None, head if self.by_head else None

    def shaped(self, effects: torch.Tensor) -> torch.Tensor:
        """Return the effects of all cells as a map."""
        name = next(iter(self.values))
        sizes = (len(self.values), self.lengths[name], self.heads[name])
        return effects.reshape(sizes if self.by_head else sizes[:2])

    def swaps(self, batch: Sequence[Cell]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return mask and value for the interfaces of a batch: row i patches cell i."""
        found = {}
        before, after = (self.window - 1) // 2, self.window // 2
        for number, (name, value) in enumerate(self.values.items()):
            if not any(centre - before <= number <= centre + after for centre, _, _ in batch):
                continue
            mask = torch.zeros(len(batch), *(1,) * (value.ndim - 1), dtype=torch.bool)
            axis = self.axes[name]
            if self.by_position and axis:
                mask = mask.repeat_interleave(value.shape[axis], axis)
            if self.by_head:
                mask = mask.repeat_interleave(value.shape[1], 1)
            for row, (centre, position, head) in enumerate(batch):
                if centre - before <= number <= centre + after:
                    at = mask[row]
                    at = at[head] if head is not None else at
                    if axis is not None and position is not None:
                        at = at.select(axis - 1 - (head is not None), position)
                    at.fill_(True)
            found[name] = (mask.to(value.device), value)
        return found
