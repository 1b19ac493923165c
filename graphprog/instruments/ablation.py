"""Ablation by what was recorded: the mean of a value, or values of other examples."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch

from graphprog.analysis.value_axes import position_axis
from graphprog.errors import ProgramError
from graphprog.instruments.places import Inputs, Model, Places, flat_inputs, graph_of, places_of
from graphprog.instruments.record import Recorder
from graphprog.instruments.selection import Selection
from graphprog.manipulations.interventions.ablation import Ablation
from graphprog.manipulations.selective import Positions, Units
from graphprog.values.base import Fixed


def ablation(
    model: Model,
    inputs: Inputs,
    at: Places,
    *,
    how: Literal["mean", "resample"] = "mean",
    positions: Positions = None,
    units: Units = None,
) -> tuple[Ablation, ...]:
    """Record what replaces the values at interfaces: mean ablation, or resample ablation.

    The mean is over the inputs and their positions; to resample, each position of each input is an
    example. Positions are those that change, if they are ``"last"`` or indices, else the tokens
    that are there. Values without positions, such as those of images, are taken whole.

    Args:
        model: a graph or a compiled model.
        inputs: the examples, in order or by name.
        at: the interfaces.
        how: see above.
        positions: positions that the ablation changes; see :class:`graphprog.Ablation`.
        units: likewise, units.

    Returns:
        One manipulation for each interface, for ``gp.Program([*parts])``.

    Raises:
        DataError: the inputs do not fit.
        ProgramError: ``how`` is unknown.

    Example:
        >>> parts = gp.instruments.ablation(language, ids, "hidden[0]", positions="last")
        >>> task = gp.compile(language, gp.Program(parts))
        >>> without = task(ids)
    """
    if how not in ("mean", "resample"):
        raise ProgramError(f"how must be 'mean' or 'resample', not {how!r}")
    graph = graph_of(model, at)
    own = positions if positions == "last" or isinstance(positions, int | tuple) else "tokens"
    flat, found = flat_inputs(graph, inputs), []
    for name, place in places_of(graph, at).items():
        axis = position_axis(graph, place)
        rows = Recorder(graph, name, Selection(own if axis else None))(flat)[name]
        if axis:
            if isinstance(positions, tuple):
                rows = rows.movedim(axis, 1).flatten(0, 1)
            rows = rows.unsqueeze(axis)
        value = rows.to(torch.float32).mean(0) if how == "mean" else rows
        part = Ablation(Fixed(value.cpu()), how == "resample", at=name)
        found.append(dataclasses.replace(part, positions=positions, units=units))
    return tuple(found)
