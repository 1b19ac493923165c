"""Checks of fields, with one wording for all of them.

``kind`` is the spec that has the field; where it is empty, the field stands alone, as the argument
of a function does. ``error`` is what is raised.
"""

from __future__ import annotations

import keyword
import math
from collections.abc import Collection, Iterable, Sequence

from graphprog.errors import GraphprogError, ProgramError
from graphprog.utils.patterns import compile_pattern

_LONGEST_AXIS = 2**31
_RESERVED = {*keyword.kwlist, "self"}


def require_integer(
    kind: str,
    field: str,
    value: object,
    least: int,
    error: type[GraphprogError] = ProgramError,
) -> None:
    """Refuse anything but an int of at least ``least``; a bool is not a number.

    Raises:
        ProgramError: naming the spec, the field and what it holds.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise error(f"{_place(kind, field)} must be an integer of at least {least}, not {value!r}")


def require_position(kind: str, field: str, value: int) -> None:
    """Refuse a place on an axis, or a length, that no tensor has.

    Raises:
        ProgramError: naming the spec, the field and what it holds.
    """
    if value >= _LONGEST_AXIS:
        raise ProgramError(f"{_place(kind, field)} is {value:.3e}, beyond the end of any axis")


def require_number(
    kind: str,
    field: str,
    value: object,
    least: float,
    inclusive: bool = True,
    error: type[GraphprogError] = ProgramError,
) -> None:
    """Refuse anything but a finite number of at least ``least``, or above it.

    Raises:
        ProgramError: naming the spec, the field and what it holds.
    """
    valid = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not valid or value < least or (value == least and not inclusive):  # type: ignore[operator]
        bound = "of at least" if inclusive else "above"
        raise error(f"{_place(kind, field)} must be a number {bound} {least:g}, not {value!r}")


def require_choice(
    kind: str,
    field: str,
    value: object,
    choices: Collection[str],
    remedies: Sequence[str] = (),
    error: type[GraphprogError] = ProgramError,
) -> None:
    """Refuse anything but one of the choices.

    Raises:
        ProgramError: naming the spec, the field, what it holds and the choices.
    """
    if not isinstance(value, str) or value not in choices:
        known = ", ".join(choice or "''" for choice in choices)
        raise error(f"{_place(kind, field)} must be one of {known}, not {value!r}", remedies)


def require_texts(
    kind: str, field: str, value: object, error: type[GraphprogError] = ProgramError
) -> None:
    """Refuse anything but several texts; one text alone would be taken apart into letters.

    Raises:
        ProgramError: naming the spec, the field and what it holds.
    """
    place = _place(kind, field)
    if isinstance(value, str):
        raise error(f"{place} must be several texts, not {value!r:.60}", [f"[{value!r:.60}]"])
    if not isinstance(value, Iterable) or not all(isinstance(item, str) for item in value):
        raise error(f"{place} must be several texts, not {value!r:.60}")


def require_text(kind: str, field: str, value: object, *, blank: bool = False) -> None:
    """Refuse anything but text, and text of white space alone unless ``blank`` allows it.

    Raises:
        ProgramError: naming the spec, the field and what it holds.
    """
    if not isinstance(value, str):
        raise ProgramError(f"{_place(kind, field)} must be text, not {value!r:.60}")
    if not blank and not value.strip():
        raise ProgramError(f"{_place(kind, field)} is empty", ["leave the whole part out"])


def require_name(kind: str, field: str, value: object) -> None:
    """Refuse anything but the name of an argument, in which ``*`` stands for an index.

    Raises:
        ProgramError: naming the spec, the field and what it holds.
    """
    plain = value.replace("*", "0") if isinstance(value, str) else ""
    fits = plain.isascii() and plain.isidentifier() and len(plain) <= 100
    if not fits or plain in _RESERVED:
        raise ProgramError(
            f"{_place(kind, field)} must be the name of an input, not {value!r:.60}",
            ["use letters, digits and underscores"],
        )


def require_pattern(kind: str, field: str, value: object) -> None:
    """Refuse anything but a regular expression, in RE2's syntax, of at most one group.

    Raises:
        ProgramError: naming the spec, the field, and what is wrong with it.
    """
    require_text(kind, field, value)
    place = _place(kind, field)
    try:
        groups = compile_pattern(str(value)).groups
    except ValueError as error:
        raise ProgramError(f"{place} {value!r:.80}: {error}") from error
    if groups > 1:
        raise ProgramError(
            f"{place} {value!r:.80} has {groups} groups; one is what is read",
            ["write (?:...) for the others"],
        )


def _place(kind: str, field: str) -> str:
    return f"{kind}: {field}" if kind else field
