"""The replacement operator: replace entries along one axis of a value."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from graphprog.analysis.value_axes import is_batch
from graphprog.errors import InterfaceError, ProgramError
from graphprog.manipulations.prompts.concatenative import Prompt
from graphprog.manipulations.selective import SelectiveManipulation
from graphprog.spec.checks import require_position
from graphprog.spec.registry import spec
from graphprog.values.base import Learnable, shape_text
from graphprog.values.context import BuildContext
from graphprog.values.entries import Entries, Made, entries_module


@spec("replacement")
@dataclasses.dataclass(frozen=True)
class Replacement(SelectiveManipulation):
    """Replace entries along an axis; the length does not change.

    After a :class:`~graphprog.Concatenative` of the same ``length`` and ``offset`` it makes a deep
    prompt: the inserted slots get new entries at every block instead of growing in number
    (VPT-deep, Jia et al., ECCV 2022; MaPLe, Khattak et al., CVPR 2023, at the end).
    ``hidden[*]`` has its own entries at each interface; ``hidden[0:4]`` is a range of depths.

    With ``positions``, the entries go there instead, in order: number k to position number k of
    those chosen, which may differ from row to row; further positions keep their values.

    Attributes:
        at: one or several interfaces.
        name: name of the part; the kind if empty.
        length: number of entries.
        axis: axis of the value.
        offset: index of the first replaced entry; -1 replaces the last ``length`` entries. Not
            with ``positions``.
        value: the entries, as for :class:`~graphprog.Concatenative`. ``Shared("concatenative")``
            uses the same entries at every depth.
        init: shorthand for ``value=Learnable(init)``.

    Example:
        >>> slots = gp.Concatenative(at="tokens", length=4, until="logits")
        >>> deep = gp.Replacement(at="hidden[*]", length=4)  # fresh entries after every block
        >>> task = gp.compile(language, gp.Program([slots, deep]))
    """

    length: int = 10
    axis: int = 1
    offset: int = 0
    value: Prompt = dataclasses.field(default_factory=lambda: Learnable("normal", 0.02))
    init: dataclasses.InitVar[Any] = None

    def __post_init__(self, init: Any) -> None:
        if init is not None:
            object.__setattr__(self, "value", Learnable(init))
        if self.length < 1 or self.offset < -1 or self.axis < 1:
            raise ProgramError(
                f"{self.kind}: length {self.length}, offset {self.offset} or axis {self.axis} is "
                "too small",
                ["set length from 1, offset from 0 or -1 for the end, axis from 1"],
            )
        for field in ("length", "offset", "axis"):
            require_position(self.kind, field, getattr(self, field))
        self._check_positions()

    def _check_positions(self) -> None:
        """Check that there are not more entries than positions, as far as their number is known."""
        chosen = self.positions
        if chosen is None:
            return
        if self.offset:
            raise ProgramError(
                f"{self.kind}: offset={self.offset} and positions={chosen!r:.60} exclude one "
                "another",
                ["leave out offset="],
            )
        one = isinstance(chosen, int) or chosen == "last"
        number = 1 if one else len(set(chosen)) if isinstance(chosen, tuple) else self.length
        if self.length > number:
            raise ProgramError(
                f"{self.kind}: {self.length} entries for positions={chosen!r:.60}, which are "
                f"{number}",
                [f"length={number}"],
            )

    @property
    def reads(self) -> tuple[str, ...]:
        """Inputs from which the entries are computed, if any."""
        return self.value.reads if isinstance(self.value, Made) else ()

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for a float value.

        Raises:
            InterfaceError: the value has no such entries, or is not floating point.
            ProgramError: the entries have another shape.
        """
        value, where = context.value, context.where
        if value.ndim <= self.axis:
            raise InterfaceError(f"{where} of shape {shape_text(value)} has no axis {self.axis}")
        if context.graph is not None and is_batch(context.graph, value, self.axis):
            raise InterfaceError(
                f"{where}: axis {self.axis} is the batch, whose entries are examples",
                ["choose an interface at which that axis is the sequence"],
            )
        if self.positions is not None:
            module = entries_module(self.value, context.with_entries(self.axis, self.length))
            return _Entries(module)
        size: int | torch.SymInt = value.shape[self.axis]
        last = max(self.offset, 0) + self.length
        if isinstance(size, int) and size < last:
            raise InterfaceError(
                f"{where} has {size} entries on axis {self.axis}, but {last} are needed",
                ["insert them first: gp.Concatenative(...) with the same length and offset"],
            )
        entries = entries_module(self.value, context.with_entries(self.axis, self.length))
        known = isinstance(size, int) or (
            size.node.shape_env.bound_sympy(size.node.expr).lower > last
        )
        return (Slots if known else _Places)(entries, self.axis, self.offset, self.length)


class _Entries(nn.Module):
    """Forward: the value, and inputs of the entries -> the value, and the entries."""

    def __init__(self, entries: Entries) -> None:
        super().__init__()
        self.entries = entries

    def forward(self, x: torch.Tensor, *others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Make the entries; they are placed where the positions are known."""
        return x, self.entries(x, *others)


class Slots(nn.Module):
    """Forward: the value, and inputs of the entries -> the new value, and the entries."""

    def __init__(self, entries: Entries, axis: int, offset: int, length: int) -> None:
        super().__init__()
        self.entries = entries
        self.axis = axis
        self.offset = offset
        self.length = length
        self.needed = max(offset, 0) + length

    def forward(self, x: torch.Tensor, *others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Put the entries between what comes before the slots and after them."""
        entries = self.entries(x, *others)
        shape = list(x.shape)
        shape[self.axis] = self.length
        size = x.shape[self.axis]
        first = size - self.length if self.offset == -1 else self.offset
        parts = [x.narrow(self.axis, 0, first)] if self.offset else []
        parts.append(entries.expand(shape))
        if self.offset != -1:
            after = first + self.length
            parts.append(x.narrow(self.axis, after, size - after))
        return torch.cat(parts, self.axis), entries


class _Places(Slots):
    """Slots of a value that may be too short for them, which is then an error of the call."""

    def forward(self, x: torch.Tensor, *others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Put the entries into their places, which are given by number."""
        entries = self.entries(x, *others)
        shape = list(x.shape)
        shape[self.axis] = self.length
        size = x.shape[self.axis]
        places = torch.arange(self.length, device=x.device)
        places = places + (self.offset if self.offset >= 0 else size - self.length)
        if self.offset == -1:  # ONNX counts negative places from the end
            places = torch.where(places < 0, size, places)
        return x.index_copy(self.axis, places, entries.expand(shape)), entries
