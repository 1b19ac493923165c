"""Checks of the fields of text programs, with one wording for all of them."""

from __future__ import annotations

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
