"""Roles of a model's side inputs along an extended axis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from graphprog.errors import ProgramError

MEANINGS = ("present", "zero", "positions")


def checked_meanings(
    input_roles: Mapping[str, str] | Iterable[tuple[str, str]],
) -> tuple[tuple[str, str], ...]:
    """Check roles of inputs by name, and return them as pairs; mappings are sorted by name.

    Raises:
        ProgramError: a role is unknown.
    """
    pairs = tuple(sorted(input_roles.items()) if isinstance(input_roles, Mapping) else input_roles)
    for name, meaning in pairs:
        if meaning not in MEANINGS:
            raise ProgramError(
                f"the role {meaning!r} of input {name!r} is unknown; known: " + ", ".join(MEANINGS)
            )
    return pairs
