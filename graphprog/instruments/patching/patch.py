"""Activation patching: which values of a clean run restore its answer in a corrupt run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from graphprog.analysis.value_axes import position_axis
from graphprog.errors import DataError, ProgramError
from graphprog.instruments.patching.effect_map import EffectMap
from graphprog.instruments.patching.grid import Grid, Positions
from graphprog.instruments.patching.metric import Metric, metric_of
from graphprog.instruments.patching.swap import Swapped
from graphprog.instruments.places import (
    Inputs,
    Model,
    Places,
    flat_inputs,
    graph_of,
    places_of,
)
from graphprog.instruments.stream import progress_bar
from graphprog.ir.graph import Graph
from graphprog.ir.interface import Interface
from graphprog.rewriting.effects import require_effect

Into = Literal["corrupt", "clean"]


def patch(
    model: Model,
    clean: Inputs,
    corrupt: Inputs,
    at: Places = "hidden[*]",
    *,
    metric: Metric,
    positions: Positions = "each",
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
    et al., 2022 (arXiv:2202.05262). All cells run through one graph, a batch of them at a time, and
    only what comes after the first interface of a batch. A cell that has the same value in both
    runs has the effect 0 and is not run.

    Args:
        model: a graph or a compiled model.
        clean: inputs of the clean run, one row.
        corrupt: inputs of the corrupt run, one row of the same shape.
        at: the interfaces.
        metric: a function of the logits [B, ...] that returns [B], or two classes, right and wrong,
            for the difference of their logits at the last position.
        positions: whether each position of values [B, S, d] is a cell, or all together are one; or
            an index, or indices, of those that are cells.
        heads: whether each head of values [B, H, S, d] is a cell.
        window: number of consecutive interfaces that a cell patches, centred on its own.
        through: an interface; only what reaches the outputs through its value counts.
        into: run into which values are patched; with ``"clean"``, corrupt values go into the clean
            run, and the effect is what they destroy.
        batch_size: cells of a run; where maps are deep, smaller batches save more of the runs.
        progress: whether to show a bar; None shows it on a terminal.

    Raises:
        DataError: inputs differ in shape or have several rows, or the two runs have one metric.
        InterfaceError: a name is unknown or ambiguous, or no output depends on the value.
        ProgramError: an option is unknown.

    Example:
        >>> found = gp.patch(language, ids[:1], ids[1:], at="hidden[*]", metric=(3, 5))
        >>> assert abs(float(found.effects[-1, -1]) - 1) < 1e-4  # the last value decides
    """
    _check_options(heads, window, into)
    names = [at] if isinstance(at, str) else [*at]
    graph, score = graph_of(model, [*names, *([through] if through else [])]), metric_of(metric)
    places = places_of(graph, names)
    targets, through = _with_passage(graph, places, through)
    require_effect(graph, targets)
    runs = two_runs(graph, clean, corrupt)
    donor, host = runs if into == "corrupt" else runs[::-1]
    swapped = Swapped.of(graph, targets, [*targets])
    with torch.no_grad():
        whole = [swapped(flat) for flat in (donor, host)]
        read = len(graph.output_nodes)
        values, others = (dict(zip(targets, one[read:], strict=True)) for one in whole)
        ends = [float(score(one[0])) for one in whole]
        check_ends(ends)
        axes = {name: position_axis(graph, place) for name, place in places.items()}
        grid = Grid(
            {name: values[name] for name in places}, others, axes,
            positions, heads == "each", window,
        )  # fmt: skip
        cells = list(grid.cells())
        moved = torch.tensor([grid.changes(cell) for cell in cells])
        scores = torch.full([len(cells)], ends[1], dtype=torch.double)
        batches = [
            some.tolist() for some in moved.nonzero().flatten().split(batch_size) if len(some)
        ]
        for batch in progress_bar(batches, len(batches), "patching", progress):
            flat = [value.expand(len(batch), *value.shape[1:]) for value in host]
            swaps = grid.swaps([cells[number] for number in batch])
            if through:
                passing = swapped(flat, swaps)[read + [*targets].index(through)]
                swaps = {through: (torch.ones_like(passing, dtype=torch.bool), passing)}
            scores[batch] = score(swapped.onward(flat, swaps, others)[0]).cpu().double()
    effects = (scores - ends[1]) / (ends[0] - ends[1])
    clean_end, corrupt_end = ends if into == "corrupt" else ends[::-1]
    return EffectMap(
        tuple(places), grid.shaped(effects.float()), clean_end, corrupt_end, grid.named
    )


def _with_passage(
    graph: Graph, places: dict[str, Interface], through: str | None
) -> tuple[dict[str, Interface], str | None]:
    """Return the interfaces with the one that effects pass through, and its name among them."""
    if through is None:
        return places, None
    passage = graph.interfaces().resolve(through)
    own = (name for name, place in places.items() if place.key == passage.key)
    through = next(own, through)
    return {**places, through: passage}, through


def _check_options(heads: str, window: int, into: str) -> None:
    for name, value, known in (
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
