"""Checks of the fields of text programs, with one wording for all of them."""

from __future__ import annotations

import re

from graphprog.errors import ProgramError


def require_text(kind: str, field: str, value: object, *, blank: bool = False) -> None:
    """Refuse anything but text, and text of white space alone unless ``blank`` allows it.

    Raises:
        ProgramError: naming the spec, the field and what it holds.
    """
    if not isinstance(value, str):
        raise ProgramError(f"{kind}: {field} must be text, not {value!r:.60}")
    if not blank and not value.strip():
        raise ProgramError(f"{kind}: {field} is empty", ["leave the whole part out"])


def require_pattern(kind: str, field: str, value: object) -> None:
    """Refuse anything but a regular expression of at most one group.

    Raises:
        ProgramError: naming the spec, the field, and what is wrong with it.
    """
    require_text(kind, field, value)
    try:
        groups = re.compile(str(value)).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise ProgramError(f"{kind}: {field} {value!r:.80}: {error}") from error
    if groups > 1:
        raise ProgramError(
            f"{kind}: {field} {value!r:.80} has {groups} groups; one is what is read",
            ["write (?:...) for the others"],
        )
