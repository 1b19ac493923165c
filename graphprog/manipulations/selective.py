"""Manipulations that change some positions and units of a value."""

from __future__ import annotations

import dataclasses
import re

from graphprog.errors import ProgramError
from graphprog.manipulations.base import Manipulation
from graphprog.spec.checks import require_name

Positions = int | tuple[int, ...] | str | None
Units = int | tuple[int, ...] | str | None

_RANGE = r"(-?\d{1,9})?:(-?\d{1,9})?"
RANGES = re.compile(rf"{_RANGE}(,{_RANGE})*")
TOKENS = re.compile(rf"tokens(\[(?P<ranges>{RANGES.pattern})\])?")
MASK = "mask:"
_MOST = 256
"""Indices, each of which may become an operation."""


@dataclasses.dataclass(frozen=True)
class SelectiveManipulation(Manipulation):
    """Base of manipulations that keep the shape of a value, and may change a part of it.

    Elsewhere the value stays as it is.

    Attributes:
        positions: positions that change, for values [B, S, d] and [B, H, S, d]: an index, a tuple
            of indices, or ranges such as ``"2:-1"`` and ``":2,-2:"``, which count what the value
            has, inserted entries too; ``"tokens"`` (of those that are there), ranges of these such
            as ``"tokens[-3:]"``, or ``"last"``, the last of them; the name of an input [B, S],
            which is not zero there; or ``"mask:where"`` for such an input ``where``, of bools,
            which the model then gets. A call with fewer entries than the indices name is refused;
            in ONNX files such indices change nothing.
        units: channels, features or heads that change: indices, or a range such as ``"0:8"``.

    Example:
        >>> last = gp.Additive(at="hidden[0]", positions="last", units="0:4")
        >>> task = gp.compile(language, gp.Program([last]))
    """

    positions: Positions = dataclasses.field(default=None, kw_only=True)
    units: Units = dataclasses.field(default=None, kw_only=True)

    @property
    def changes_all(self) -> bool:
        """Whether the whole value changes."""
        return self.positions is None and self.units is None


def require_selection(part: SelectiveManipulation) -> None:
    """Check the form of positions and units.

    Raises:
        ProgramError: they hold something else.
    """
    for name, chosen in (("positions", part.positions), ("units", part.units)):
        named = name == "positions" and isinstance(chosen, str)
        if named and str(chosen).startswith(MASK):
            require_name(part.kind, name, str(chosen).removeprefix(MASK))
        if not (chosen is None or named or _selects(chosen)):
            raise ProgramError(
                f"{part.kind}: {name} must be an index, up to {_MOST} indices or a range, "
                f"not {chosen!r:.60}",
                [f"{name}=3", f"{name}=(0, -1)", f'{name}="2:5"'],
            )


def _selects(chosen: object) -> bool:
    """Whether something is an index, several of them, or a range as text."""
    if isinstance(chosen, str):
        return RANGES.fullmatch(chosen) is not None
    numbers = chosen if isinstance(chosen, tuple) else (chosen,)
    return 0 < len(numbers) <= _MOST and all(
        isinstance(one, int) and not isinstance(one, bool) and abs(one) < 10**9 for one in numbers
    )
