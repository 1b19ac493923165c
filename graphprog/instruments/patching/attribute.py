"""Attribution: effects of all cells from gradients, instead of a run for each."""

from __future__ import annotations

from typing import Literal

import torch

from graphprog.analysis.value_axes import position_axis
from graphprog.errors import DataError, ProgramError
from graphprog.instruments.patching.effect_map import EffectMap
from graphprog.instruments.patching.grid import Grid, Positions
from graphprog.instruments.patching.metric import Metric, metric_of
from graphprog.instruments.patching.patch import check_ends, two_runs
from graphprog.instruments.patching.swap import Swapped
from graphprog.instruments.places import (
    Inputs,
    Model,
    Places,
    flat_inputs,
    graph_of,
    places_of,
)
from graphprog.rewriting.effects import require_effect

How = Literal["patching", "integrated"]


def attribute(
    model: Model,
    clean: Inputs,
    corrupt: Inputs,
    at: Places = "hidden[*]",
    *,
    metric: Metric,
    positions: Positions = "each",
    heads: Literal["each", "all"] = "all",
    how: How = "patching",
    steps: int = 16,
) -> EffectMap:
    """Estimate what :func:`graphprog.patch` measures, for all cells at once.

    ``"patching"`` is attribution patching (Nanda, 2023; Syed et al., 2023, arXiv:2310.10348): the
    gradient of the metric at the corrupt value, times the difference of the clean and the corrupt
    value; two forward runs and one backward run. ``"integrated"`` takes the mean gradient on the
    straight line between the two values (Sundararajan et al., 2017, arXiv:1703.01365), at each
    interface alone; the cells of an interface then sum to the effect of patching all of them.

    Args:
        model: a graph or a compiled model.
        clean: inputs of the clean run, one row.
        corrupt: inputs of the corrupt run, one row of the same shape.
        at: the interfaces.
        metric: as for :func:`graphprog.patch`; differentiable.
        positions: as for :func:`graphprog.patch`.
        heads: likewise.
        how: see above.
        steps: points on the line, for ``"integrated"``.

    Raises:
        DataError: as :func:`graphprog.patch`.
        ProgramError: an option is unknown.

    Example:
        >>> found = gp.attribute(language, ids[:1], ids[1:], metric=(3, 5))
        >>> found.names
        ('hidden[0]', 'hidden[1]')
    """
    graph, score = graph_of(model, at), metric_of(metric)
    if how not in ("patching", "integrated") or steps < 1:
        raise ProgramError(f"how must be 'patching' or 'integrated', steps 1 or more: {how!r}")
    if heads not in ("each", "all"):
        raise ProgramError(f"heads must be 'each' or 'all', not {heads!r}")
    places = places_of(graph, at)
    require_effect(graph, places)
    donor, host = two_runs(graph, clean, corrupt)
    swapped, read = Swapped.of(graph, places, [*places]), len(graph.output_nodes)
    with torch.no_grad():
        goal = swapped(donor)
    start = swapped(host, traced=True)
    scores = [score(found[0]) for found in (goal, start)]
    ends = [float(one.detach()) for one in scores]
    check_ends(ends)
    values, others = ([one.detach() for one in found[read:]] for found in (goal, start))
    gaps = [value - other for value, other in zip(values, others, strict=True)]
    if how == "patching":
        slopes = torch.autograd.grad(
            scores[1].sum(), start[read:], materialize_grads=True, allow_unused=True
        )
    else:
        slopes = tuple(
            _mean_slope(swapped, score, host, *line, steps)
            for line in zip(places, others, gaps, strict=True)
        )
    own, other = (dict(zip(places, run, strict=True)) for run in (values, others))
    axes = {name: position_axis(graph, place) for name, place in places.items()}
    grid = Grid(own, other, axes, positions, heads == "each")
    products = [slope.double() * gap for slope, gap in zip(slopes, gaps, strict=True)]
    effects = (grid.sums(products) / (ends[0] - ends[1])).float().cpu()
    return EffectMap(tuple(places), effects, ends[0], ends[1], grid.named)


def _mean_slope(
    swapped: Swapped,
    score: Metric,
    host: list[torch.Tensor],
    name: str,
    start: torch.Tensor,
    gap: torch.Tensor,
    steps: int,
) -> torch.Tensor:
    """Return the mean gradient on the line from the corrupt to the clean value, by midpoints."""
    shares = (torch.arange(steps, device=start.device) + 0.5) / steps
    shape = (-1, *(1,) * (start.ndim - 1))
    points = (start + shares.reshape(shape).to(start.dtype) * gap).requires_grad_()
    every = torch.ones((), dtype=torch.bool, device=start.device)
    flat = [value.expand(steps, *value.shape[1:]) for value in host]
    assert callable(score)
    total = score(swapped(flat, {name: (every, points)})[0]).sum()
    return torch.autograd.grad(total, points)[0].mean(0, keepdim=True)


def grad_cam(
    model: Model, inputs: Inputs, at: str, *, target: int | torch.Tensor | None = None
) -> torch.Tensor:
    """Return which places of a value speak for a class: Grad-CAM (Selvaraju et al., 2017).

    Each feature is weighted by the mean of its gradient; the sum over features is cut at zero.

    Args:
        model: a graph or a compiled model, whose logits are [B, C].
        inputs: its inputs, in order or by name.
        at: an interface with values [B, C, H, W] or [B, S, d].
        target: class, or class of each row; by default the predicted one.

    Returns:
        [B, H, W] or [B, S], not negative.

    Raises:
        DataError: the value or the logits have another rank, or there is no such class.

    Example:
        >>> gp.instruments.grad_cam(graph, images, "hidden[1]").shape
        torch.Size([4, 8, 8])
    """
    graph = graph_of(model, at)
    places = places_of(graph, at)
    place = next(iter(places.values()))
    if len(places) != 1 or len(place.shape) not in (3, 4):
        raise DataError(
            f"the value at {at!r} is {place.type_text}; [B, C, H, W] or [B, S, d] is needed"
        )
    require_effect(graph, places)
    flat = flat_inputs(graph, inputs)
    found = Swapped.of(graph, places, [*places])(flat, traced=True)
    logits, value = found[0], found[-1]
    if logits.ndim != 2:
        raise DataError(f"logits have shape {list(logits.shape)}; [B, C] is needed")
    chosen = logits.argmax(1) if target is None else torch.as_tensor(target, device=logits.device)
    chosen = chosen.expand(len(logits))
    if not bool(((chosen >= 0) & (chosen < logits.shape[1])).all()):
        raise DataError(f"target {target} is not one of {logits.shape[1]} classes")
    total = logits.gather(1, chosen[:, None]).sum()
    slope = torch.autograd.grad(total, value)[0]
    value = value.detach()
    features = 1 if value.ndim == 4 else 2
    others = tuple(axis for axis in range(1, value.ndim) if axis != features)
    weighted: torch.Tensor = (slope.mean(others, keepdim=True) * value).sum(features)
    return weighted.clamp(min=0)
