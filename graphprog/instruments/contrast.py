"""Steering: a direction between two sets of inputs, as a program for every interface."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import torch

from graphprog.compiler.program import Program
from graphprog.errors import DataError, ProgramError
from graphprog.instruments.places import Inputs, Model, Places, flat_inputs, graph_of
from graphprog.instruments.record import Recorder
from graphprog.instruments.selection import Positions, Selection
from graphprog.manipulations.modules.additive import Additive
from graphprog.utils.columns import columns
from graphprog.utils.plots.figures import Path, figure, keep
from graphprog.values.base import Fixed

How = Literal["mean", "pca", "probe"]


@dataclasses.dataclass(frozen=True)
class Direction:
    """The direction at one interface.

    Attributes:
        name: the interface.
        vector: [d]; points from the negative to the positive inputs. Its length is the distance
            between their means along it.
        separation: share of held-out inputs that a threshold on the direction assigns rightly; the
            threshold is the middle between the means of the other inputs.
    """

    name: str
    vector: torch.Tensor = dataclasses.field(repr=False, compare=False)
    separation: float


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Directions at several interfaces; prints as a table of their separation.

    Attributes:
        rows: one for each interface.

    Example:
        >>> contrast = gp.contrast(language, ids[:1].repeat(4, 1), ids[1:].repeat(4, 1))
        >>> task = gp.compile(language, contrast.program("hidden[0]", strength=2.0))
    """

    rows: tuple[Direction, ...]

    @property
    def best(self) -> Direction:
        """The direction that separates held-out inputs best; of equal ones, the first."""
        return max(self.rows, key=lambda row: row.separation)

    def program(self, at: Places | None = None, strength: float = 1.0) -> Program:
        """Return a program that adds the directions to every position.

        Args:
            at: the interfaces; by default that of the best direction.
            strength: factor of the vectors; negative steers towards the negative inputs.

        Raises:
            ProgramError: there is no direction at an interface.
        """
        values = {name: Fixed(strength * one) for name, one in self.vectors(at).items()}
        return Program(tuple(Additive(at=name, value=value) for name, value in values.items()))

    def vectors(self, at: Places | None = None) -> dict[str, torch.Tensor]:
        """Return the vectors [d] by interface: ``onnx.export(graph, path, steer=...)`` takes them.

        Args:
            at: the interfaces; by default that of the best direction.

        Raises:
            ProgramError: there is no direction at an interface.

        Example:
            >>> contrast = gp.contrast(language, ids[:1].repeat(4, 1), ids[1:].repeat(4, 1))
            >>> [*contrast.vectors("hidden[0]")]
            ['hidden[0]']
        """
        known: Mapping[str, Direction] = {row.name: row for row in self.rows}
        names = [self.best.name] if at is None else [at] if isinstance(at, str) else [*at]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ProgramError(
                f"there is no direction at {', '.join(unknown)}", [f"there are {[*known]}"]
            )
        return {name: known[name].vector for name in names}

    def __str__(self) -> str:
        rows = [
            (row.name, f"{float(row.vector.norm()):.3f}", f"{row.separation:.3f}")
            for row in self.rows
        ]
        return "\n".join(columns(rows, ("interface", "length", "separation on held-out inputs")))

    def plot(self, path: Path | None = None) -> Any:
        """Plot the separation by depth; written to ``path``, if given."""
        drawing, (axis,) = figure(1, 7.0, 3.4)
        numbers = list(range(len(self.rows)))
        axis.plot(numbers, [row.separation for row in self.rows], "o-")
        axis.axhline(0.5, color="gray", linestyle="--", label="chance")
        axis.set_xticks(numbers, [row.name for row in self.rows], rotation=60, ha="right")
        axis.set_ylabel("separation on held-out inputs")
        axis.set_ylim(0, 1.02)
        axis.grid(alpha=0.3)
        axis.legend()
        return keep(drawing, path)


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
        at: the interfaces, with values [B, S, d] or [B, d].
        how: see above.
        positions: which positions represent an input, as for :func:`graphprog.record`; those left
            are averaged.
        held_out: share of the rows of each set that only measures the separation.
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
    recorder = Recorder(graph, at, Selection(positions))
    sets = [_features(recorder(flat_inputs(graph, one))) for one in (positive, negative)]
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
        rows.append(Direction(name, vector.float().cpu(), float(hits.double().mean())))
    return Contrast(tuple(rows))


def _features(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Average what has positions left: [B, S, d] to [B, d]."""
    found = {}
    for name, value in values.items():
        if value.ndim not in (2, 3):
            raise DataError(f"the value at {name!r} has shape {list(value.shape)}, not [B, S, d]")
        found[name] = (value.mean(1) if value.ndim == 3 else value).double()
    return found


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
