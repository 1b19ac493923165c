"""Alignment that slices an output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from graphprog.alignments.base import Alignment
from graphprog.errors import ProgramError
from graphprog.spec.checks import require_integer
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext

Range = tuple[int, int, int | None]
"""Axis, start and stop."""


@spec("slice")
@dataclass(frozen=True)
class Slice(Alignment):
    """Slice an output: ``Slice({2: (16, 32), 3: (16, 32)})`` crops a quadrant of images.

    Attributes:
        ranges: start and stop by axis, as in Python slices; the batch axis cannot be sliced. Stored
            as triples (axis, start, stop).

    Example:
        >>> task = gp.compile(graph, gp.Program(align=gp.Slice({1: (0, 5)})))
        >>> assert torch.equal(task(images), graph(images)[:, :5])
    """

    ranges: tuple[Range, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = self.ranges
        if isinstance(given, Mapping):
            given = [(axis, *bounds) for axis, bounds in sorted(given.items())]
        found = tuple(self._checked(item) for item in given)
        object.__setattr__(self, "ranges", found)
        if not found or len({axis for axis, *_ in found}) < len(found):
            raise ProgramError(
                f"{self.kind}: ranges must have at least one axis, each once",
                ["Slice({1: (0, 10)}) keeps the first ten entries of axis 1"],
            )

    def _checked(self, item: Any) -> Range:
        if not isinstance(item, tuple | list) or len(item) != 3:
            raise ProgramError(
                f"{self.kind}: a range must be axis, start and stop, not {item!r:.60}"
            )
        axis, start, stop = item
        require_integer(self.kind, "an axis", axis, 1)
        require_integer(self.kind, "a start", start, -(2**31))
        if stop is not None:
            require_integer(self.kind, "a stop", stop, -(2**31))
        return axis, start, stop

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for values of any shape and dtype.

        Raises:
            ProgramError: the values have no such axis, or a range of it is empty.
        """
        values = context.value
        for axis, start, stop in self.ranges:
            place = f"{self.kind} reads {self.at!r} of shape {list(values.shape)}"
            if axis >= values.ndim:
                raise ProgramError(f"{place}: there is no axis {axis}")
            size: object = values.shape[axis]
            if not isinstance(size, int):
                continue
            ends = [abs(end) for end in (start, stop) if end is not None]
            if max(ends) > size or not range(size)[start:stop]:
                raise ProgramError(f"{place}: axis {axis} has no entries {start}:{stop}")
        return _Sliced(self.ranges)


class _Sliced(nn.Module):
    """Forward: values -> their slice."""

    def __init__(self, ranges: tuple[Range, ...]) -> None:
        super().__init__()
        self.ranges = ranges

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Slice."""
        bounds = {axis: slice(start, stop) for axis, start, stop in self.ranges}
        return values[tuple(bounds.get(axis, slice(None)) for axis in range(values.ndim))]
