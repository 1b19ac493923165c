"""Checks of lengths: tables of positions are long enough, and inputs have what programs change."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeAlias

import sympy
import torch

from graphprog.analysis.length_limits import position_tables
from graphprog.analysis.value_axes import position_axis
from graphprog.errors import DataError, PassError
from graphprog.ir.graph import Graph
from graphprog.ir.inputs import InputSpec
from graphprog.ir.records import Insertion
from graphprog.ir.sizes import expression
from graphprog.manipulations.prompts.replacement import Slots
from graphprog.manipulations.selective import SelectiveManipulation


@dataclasses.dataclass(frozen=True)
class LengthLimit:
    """The largest length of an axis of the inputs.

    Attributes:
        axis: letter of the axis.
        most: its largest length.
        added: number of positions that the program adds.
        table: name of the table of positions.
    """

    axis: str
    most: int
    added: int
    table: str


@dataclasses.dataclass(frozen=True)
class SlotLimit:
    """The smallest length of an axis of the inputs.

    Attributes:
        axis: letter of the axis.
        added: number of entries that the program adds before it changes some.
        needed: number of entries that there must be.
        part: name of the part that changes them.
    """

    axis: str
    added: int
    needed: int
    part: str


Limit: TypeAlias = LengthLimit | SlotLimit


def refuse_too_long(before: Graph, after: Graph) -> None:
    """Refuse a program that needs more positions than a table has, at the length of capture.

    Raises:
        PassError: names the table and both lengths.
    """
    known = {table.name: table.at_capture(before) for table in position_tables(before)}
    for table in position_tables(after):
        needed, had = table.at_capture(after), known.get(table.name)
        if needed is None or had is None or not had <= table.rows < needed:
            continue
        most, kinds = table.rows - had, {one.kind for one in after.insertions}
        remedies = [f"use fewer entries: {most} or less"] if most else []
        if "axis" in kinds and "embedding" in after.aliases:
            remedies.append("at='embedding' inserts after positions are added, and needs none")
        if "prefix" in kinds:
            remedies.append("positions='keep' counts the positions of the input from 0")
        raise PassError(
            f"the program needs {needed} positions for an input of the captured length, which "
            f"needs {had} without it, but table {table.name} has {table.rows}",
            [*remedies, "capture the model with a shorter example, if inputs are shorter"],
        )


def length_limits(graph: Graph) -> tuple[LengthLimit, ...]:
    """Return the limits that tables of positions set to the dynamic axes of the inputs."""
    found = []
    for table in position_tables(graph):
        symbols = list(table.needed.free_symbols)
        if not table.exact or len(symbols) != 1 or symbols[0] not in graph.symbols:
            continue
        added = sympy.expand(table.needed - symbols[0])
        if added.is_Integer:
            letter = str(graph.symbols[symbols[0]])
            found.append(LengthLimit(letter, table.rows - int(added), int(added), table.name))
    return tuple(found)


def slot_limits(graph: Graph, manipulations: Sequence[object]) -> tuple[SlotLimit, ...]:
    """Return the limits that entries named by number set to the dynamic axes of the inputs.

    Args:
        graph: the rewritten graph.
        manipulations: those of its program.
    """
    found = []
    for insertion in graph.insertions:
        needs = _needed_entries(graph, insertion, manipulations)
        if needs is None or insertion.result not in graph.nodes:
            continue
        axis, needed = needs
        size = graph.nodes[insertion.result].meta["val"].shape[axis]
        symbols = list(expression(size).free_symbols) if isinstance(size, torch.SymInt) else []
        if len(symbols) == 1 and symbols[0] in graph.symbols:
            added = sympy.expand(expression(size) - symbols[0])
            if added.is_Integer:
                letter = str(graph.symbols[symbols[0]])
                found.append(SlotLimit(letter, int(added), needed, insertion.name))
    return tuple(found)


def _needed_entries(
    graph: Graph, insertion: Insertion, manipulations: Sequence[object]
) -> tuple[int, int] | None:
    """Return an axis, and how many entries of it a part needs; None if any number will do."""
    part = dict(graph.weights.program.named_modules()).get(insertion.name)
    if isinstance(part, Slots):
        return part.axis, part.needed
    selective = [one for one in manipulations if isinstance(one, SelectiveManipulation)]
    own = [one for one in selective if one.label == insertion.label]
    positions = own[0].positions if own else None
    indices = (positions,) if isinstance(positions, int) else positions
    if not isinstance(indices, tuple):
        return None
    axis = position_axis(graph, graph.interfaces().resolve(insertion.at))
    return None if axis is None else (axis, max(max(one + 1, -one) for one in indices))


def check_lengths(
    limits: Sequence[Limit],
    specs: Sequence[InputSpec],
    values: Sequence[torch.Tensor],
) -> None:
    """Check the lengths of inputs against the tables of positions.

    Raises:
        DataError: an axis is too long, or too short; names both lengths.
    """
    for limit in limits:
        for spec, value in zip(specs, values, strict=True):
            if limit.axis not in spec.shape:
                continue
            size = value.shape[spec.shape.index(limit.axis)]
            if isinstance(limit, SlotLimit):
                _check_slots(limit, spec, size)
            elif size > limit.most:
                raise DataError(
                    f"input {spec.name!r} has length {size} on axis {limit.axis}, but it can be "
                    f"{limit.most} at most: table {limit.table} has {limit.most + limit.added} "
                    f"positions, of which {limit.added} are not for the input",
                    ["pass shorter inputs", "use a program of fewer entries"],
                )


def _check_slots(limit: SlotLimit, spec: InputSpec, size: int) -> None:
    if size + limit.added < limit.needed:
        raise DataError(
            f"input {spec.name!r} has length {size} on axis {limit.axis}, but "
            f"{limit.part!r} names entries, the last of which needs {limit.needed - limit.added}",
            [
                "pass longer inputs",
                "insert entries first: gp.Concatenative(...) with the same length and offset",
            ],
        )
