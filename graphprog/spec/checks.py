"""Checks of the fields of alignments, with one wording for all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphprog.errors import ProgramError


def require_integer(kind: str, field: str, value: object, least: int) -> None:
    """Refuse anything but an int of at least ``least``; a bool is no number.

    Raises:
        ProgramError: naming the spec, the field and what it holds.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ProgramError(f"{kind}: {field} must be an integer of at least {least}, not {value!r}")


def require_number(kind: str, field: str, value: object, above: float, inclusive: bool) -> None:
    """Refuse anything but a finite number over ``above`` (or equal to it, when inclusive).

    Raises:
        ProgramError: naming the spec, the field and what it holds.
    """
    valid = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not valid or value < above or (value == above and not inclusive):  # type: ignore[operator]
        bound = "at least" if inclusive else "above"
        raise ProgramError(f"{kind}: {field} must be a number {bound} {above:g}, not {value!r}")


def require_choice(kind: str, field: str, value: object, choices: Sequence[str]) -> None:
    """Refuse anything but one of the choices.

    Raises:
        ProgramError: naming the spec, the field, what it holds and the choices.
    """
    if value not in choices:
        raise ProgramError(f"{kind}: {field} must be one of {', '.join(choices)}, not {value!r}")
