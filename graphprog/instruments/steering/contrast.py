"""The direction between two sets of inputs, at every interface."""

from __future__ import annotations

from typing import Literal

import torch

from graphprog.errors import DataError, ProgramError
from graphprog.instruments.places import Inputs, Model, Places, flat_inputs, graph_of
from graphprog.instruments.record import Recorder
from graphprog.instruments.selection import Positions, Selection
from graphprog.instruments.steering.directions import Contrast, Direction, features
from graphprog.instruments.steering.strength import ValidationRows

How = Literal["mean", "pca", "probe"]


def contrast(
    model: Model,
    positive: Inputs,
    negative: Inputs,
    at: Places = "hidden[*]",
    *,
    how: How = "mean",
    positions: Positions = "last",
    held_out: float = 0.25,
    seed: int = 0,
) -> Contrast:
    """Find the direction that tells two sets of inputs apart, at every interface.

    Added to the values, it steers the model (Turner et al., 2023, arXiv:2308.10248; Rimsky et al.,
    2023, arXiv:2312.06681). ``"mean"`` is the difference of the means; ``"pca"`` the first
    principal component of the differences of pairs; ``"probe"`` the weight of a logistic
    regression.

    Args:
        model: a graph or a compiled model.
        positive: inputs, in order or by name, with rows [N, ...].
        negative: likewise; for ``"pca"`` row i belongs to row i of the positive inputs.
        at: the interfaces.
        how: see above.
        positions: which positions represent an input, as for :func:`graphprog.record`; several are
            averaged. None takes all, and values without positions: those of images are averaged
            over height and width.
        held_out: share of the rows of each set that only measures the separation, and the strength.
        seed: of the choice of these rows.

    Raises:
        DataError: there are too few rows, or unequal numbers of them for ``"pca"``.
        ProgramError: an option is unknown.

    Example:
        >>> contrast = gp.contrast(language, ids[:1].repeat(4, 1), ids[1:].repeat(4, 1))
        >>> contrast.best.separation
        1.0
    """
    graph = graph_of(model)
    if how not in ("mean", "pca", "probe") or not 0 < held_out < 1:
        raise ProgramError(
            f"how must be 'mean', 'pca' or 'probe', held_out within 0 and 1: {how!r}, {held_out}"
        )
    recorder = Recorder(graph, at, Selection(positions, "mean"))
    given = [
        ValidationRows(tuple(flat_inputs(graph, one)), positions) for one in (positive, negative)
    ]
    sets = [features(recorder([*one.inputs])) for one in given]
    counts = [len(next(iter(found.values()))) for found in sets]
    if how == "pca" and counts[0] != counts[1]:
        raise DataError(f"{counts[0]} positive and {counts[1]} negative rows are not pairs")
    parts = [_parts(count, held_out, seed) for count in counts]
    rows = []
    for name in recorder.places:
        trained = [found[name][kept] for found, (kept, _) in zip(sets, parts, strict=True)]
        tested = [found[name][out] for found, (_, out) in zip(sets, parts, strict=True)]
        vector, middle = _direction(how, *trained)
        hits = torch.cat([tested[0] @ vector > middle, tested[1] @ vector <= middle])
        shape = recorder.mean_shape(name)
        vector = vector.float().cpu().reshape(shape)
        rows.append(Direction(name, vector, float(hits.double().mean()), float(middle)))
    kept = [one.taken(graph, out) for one, (_, out) in zip(given, parts, strict=True)]
    return Contrast(tuple(rows), (kept[0], kept[1]))


def _parts(count: int, held_out: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    out = max(1, round(count * held_out))
    if count - out < 1:
        raise DataError(f"{count} rows are too few: one to find the direction, one to test it")
    return order[out:], order[:out]


def _direction(
    how: How, positive: torch.Tensor, negative: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the vector, and the threshold of the projection on it."""
    means = positive.mean(0), negative.mean(0)
    gap = means[0] - means[1]
    unit = gap
    if how == "pca":
        differences = positive - negative
        differences = torch.cat([differences, -differences])
        unit = torch.linalg.svd(differences, full_matrices=False).Vh[0]
    elif how == "probe":
        unit = _probe_weight(positive, negative)
    unit = unit / unit.norm().clamp(min=1e-12)
    length = unit @ gap
    vector = unit * length  # points to the positive inputs, whatever the sign of the unit
    return vector, vector @ (means[0] + means[1]) / 2


def _probe_weight(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    from sklearn.linear_model import LogisticRegression

    values = torch.cat([positive, negative])
    labels = [1] * len(positive) + [0] * len(negative)
    scale = values.std(0, correction=0).clamp(min=1e-12)
    fitted = LogisticRegression(max_iter=1000).fit((values / scale).cpu().numpy(), labels)
    return torch.from_numpy(fitted.coef_[0]).to(values) / scale
