"""The positions and units of a value that a manipulation changes."""

from __future__ import annotations

import functools
import itertools

import torch
from torch import fx, nn

from graphprog.analysis.token_inputs import TokenInputs
from graphprog.analysis.value_axes import position_axis, unit_axis
from graphprog.errors import InterfaceError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.interface import Interface
from graphprog.ir.sizes import same_size
from graphprog.manipulations.prompts.replacement import Replacement
from graphprog.manipulations.selective import (
    MASK,
    RANGES,
    TOKENS,
    Positions,
    SelectiveManipulation,
    Units,
)
from graphprog.passes.insert.new_inputs import new_input
from graphprog.passes.insert.operands import input_named
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.inliner import insert


def selected(
    edit: Editor,
    op: SelectiveManipulation,
    label: str,
    place: Interface,
    values: tuple[fx.Node, fx.Node, fx.Node],
) -> fx.Node:
    """Return the new value where a manipulation changes it, the old one elsewhere.

    Args:
        edit: the graph being edited.
        op: the manipulation, with its ``positions`` and ``units``.
        label: name of its part of the program.
        place: the interface.
        values: the old value, the new one, and what the part shares, such as its entries.

    Raises:
        InterfaceError: the value has no such axis, or no such positions or units.
    """
    old, new, shared = values
    shape = fake_tensor(old).shape
    along = across = None
    present: fx.Node | None = None
    if op.positions is not None:
        along = position_axis(edit.graph, place)
        if along is None:
            raise InterfaceError(
                f"the value at {place.key!r} is {place.type_text}, without an axis of positions",
                ["units= selects channels", "leave out positions="],
            )
        present = _present(edit, op.positions, place, along)
        if present is None:
            _check(_counted(op.positions), shape[along], "positions", place)
    if op.units is not None:
        across = unit_axis(edit.graph, place)
        _check(op.units, shape[across], "units", place)
    counted = _counted(op.positions)
    if isinstance(op, Replacement) and along is not None:
        if op.axis != along:
            raise InterfaceError(
                f"{place.key} {place.type_text} has its positions on axis {along}, not {op.axis}",
                [f"axis={along}"],
            )
        placing = _Placement(along, counted, op.length)
        inputs = [old, shared] if present is None else [old, shared, present]
        (new,) = insert(edit, label, placing, inputs, place.key)
        along = None
    if along is None and across is None:
        return new
    module = _Selection((along, counted), (across, op.units))
    inputs = [old, new] if present is None or along is None else [old, new, present]
    (result,) = insert(edit, label, module, inputs, place.key)
    return result


def _counted(positions: Positions) -> Positions:
    """Return indices or ranges, of all positions or of those that are there; None is all."""
    if positions == "last":
        return "-1:"
    if isinstance(positions, str) and not RANGES.fullmatch(positions):
        match = TOKENS.fullmatch(positions)
        return match["ranges"] if match else None
    return positions


def _present(edit: Editor, positions: Positions, place: Interface, axis: int) -> fx.Node | None:
    """Return the input that says where the positions are, if they depend on one."""
    if not isinstance(positions, str) or RANGES.fullmatch(positions):
        return None
    if positions.startswith(MASK):
        value = fake_tensor(edit.node(place.node))
        shape = (value.shape[0], value.shape[axis])
        return new_input(edit, positions.removeprefix(MASK), value, shape, torch.bool)
    known = [str(node.target) for node in edit.graph.placeholders]
    name = positions
    if positions == "last" or TOKENS.fullmatch(positions):
        name = TokenInputs.of(edit.graph).mask
        if not name:
            return None
    if name not in known:
        raise InterfaceError(
            f"{place.key}: positions={positions!r} is not a range, and not an input of the model",
            [
                '"2:5", "last", "tokens", "tokens[:3]"',
                f"one of its inputs [B, S]: {', '.join(known)}",
                f'"{MASK}{name}", for a new input',
            ],
        )
    node = input_named(edit.code, name)
    given, value = fake_tensor(node), fake_tensor(edit.node(place.node))
    if given.ndim != 2 or not same_size(given.shape[1], value.shape[axis]):
        raise InterfaceError(
            f"{place.key} {place.type_text} does not have the positions of the input {name!r} "
            f"{list(given.shape)}",
            ["put the part before those that insert tokens"],
        )
    return node


def _check(
    chosen: Positions | Units, size: int | torch.SymInt, what: str, place: Interface
) -> None:
    """Refuse what a fixed size does not have."""
    if not isinstance(size, int):
        return
    numbers = [chosen] if isinstance(chosen, int) else chosen
    if isinstance(numbers, str):
        for one in numbers.split(","):
            if not range(size)[slice(*_ends(one))]:
                raise InterfaceError(f"{place.key} has {size} {what}; none of them is in {one!r}")
        return
    if wrong := [one for one in numbers or () if not -size <= one < size]:
        raise InterfaceError(
            f"{place.key} has {size} {what}; it does not have {', '.join(map(str, wrong))}",
            ["count from 0, or from the end with negative numbers"],
        )


def _ends(text: str) -> list[int | None]:
    """Return the ends of a range such as ``2:`` or ``:-1``."""
    return [int(end) if end else None for end in text.split(":")]


class _Placement(nn.Module):
    """Forward: value, entries along an axis, and which positions are there [B, S] -> the value."""

    def __init__(self, axis: int, chosen: Positions, length: int) -> None:
        super().__init__()
        self.axis = axis
        self.chosen = chosen
        self.length = length

    def forward(
        self, old: torch.Tensor, entries: torch.Tensor, present: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Put entry k at the position that is number k of those chosen."""
        shape = list(old.shape)
        shape[self.axis] = self.length
        value, full = (one.movedim(self.axis, 1) for one in (old, entries.expand(shape)))
        where = _along(old, self.axis, self.chosen, present).expand(value.shape[:2])
        number = where.to(torch.int64).cumsum(1) - 1
        where, number = where & (number < self.length), number.clamp(0, self.length - 1)
        for _ in range(value.ndim - 2):
            where, number = where.unsqueeze(-1), number.unsqueeze(-1)
        picked = full.gather(1, number.expand(value.shape))
        result = torch.where(where, picked, value).movedim(1, self.axis)
        return result if self.axis == 1 else result.contiguous()


class _Selection(nn.Module):
    """Forward: old and new value, and which positions are there [B, S] -> the value."""

    def __init__(
        self, along: tuple[int | None, Positions], across: tuple[int | None, Units]
    ) -> None:
        super().__init__()
        self.along = along
        self.across = across

    def forward(
        self, old: torch.Tensor, new: torch.Tensor, present: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Select."""
        for (axis, chosen), there in ((self.along, present), (self.across, None)):
            if axis is not None:
                where = _chosen(old, axis, chosen, there)
                new = torch.where(where, new, old)
        return new


def _chosen(
    value: torch.Tensor, axis: int, chosen: Positions | Units, present: torch.Tensor | None
) -> torch.Tensor:
    """Return a mask that broadcasts to a value."""
    where = _along(value, axis, chosen, present)
    for _ in range(axis - 1 if where.ndim > 1 else 0):
        where = where.unsqueeze(1)
    for _ in range(value.ndim - axis - 1):
        where = where.unsqueeze(-1)
    return where


def _along(
    value: torch.Tensor, axis: int, chosen: Positions | Units, present: torch.Tensor | None
) -> torch.Tensor:
    """Return where an axis is chosen, [S], or [B, S] if it depends on an input."""
    if present is None:
        numbers = torch.arange(value.shape[axis], device=value.device)
        return numbers >= 0 if chosen is None else _among(numbers, chosen, value.shape[axis])
    where = present != 0
    if not same_size(where.shape[0], value.shape[0]):  # which nothing but a call shows
        where = where.index_select(0, torch.arange(value.shape[0], device=value.device))
    if chosen is None:
        return where
    counts = where.to(torch.int64)
    return where & _among(counts.cumsum(1) - 1, chosen, counts.sum(1, keepdim=True))


def _among(
    numbers: torch.Tensor, chosen: Positions | Units, size: int | torch.Tensor
) -> torch.Tensor:
    """Return where numbers are among indices, or in ranges, of an axis."""
    if isinstance(chosen, str):
        return functools.reduce(
            torch.logical_or, (_within(numbers, one, size) for one in chosen.split(","))
        )
    indices = chosen if isinstance(chosen, tuple) else (chosen,)
    runs = [
        _run(numbers, [index for _, index in run], size)
        for _, run in itertools.groupby(
            enumerate(sorted({index for index in indices if isinstance(index, int)})),
            lambda pair: (pair[1] - pair[0], pair[1] < 0),
        )
    ]
    return functools.reduce(torch.logical_or, runs)


def _within(numbers: torch.Tensor, chosen: str, size: int | torch.Tensor) -> torch.Tensor:
    """Return where numbers are in a range."""
    first, last = (end if end is None or end >= 0 else size + end for end in _ends(chosen))
    where = numbers >= (0 if first is None else first)
    return where if last is None else where & (numbers < last)


def _run(numbers: torch.Tensor, indices: list[int], size: int | torch.Tensor) -> torch.Tensor:
    """Return where numbers are among consecutive indices, all or none of them from the end."""
    low, high = (index if index >= 0 else size + index for index in (indices[0], indices[-1]))
    if len(indices) == 1:
        return numbers == low
    return (numbers >= low) & (numbers <= high)
