"""Roles of a model's side inputs along an extended axis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from graphprog.errors import ProgramError
from graphprog.spec.checks import require_choice

MEANINGS = ("present", "zero", "positions")


def checked_meanings(
    input_roles: Mapping[str, str] | Iterable[tuple[str, str]],
) -> tuple[tuple[str, str], ...]:
    """Check roles of inputs by name, and return them as pairs; mappings are sorted by name.

    Raises:
        ProgramError: a role is unknown, or there are no pairs.
    """
    pairs = tuple(sorted(input_roles.items()) if isinstance(input_roles, Mapping) else input_roles)
    given: tuple[object, ...] = (input_roles, *pairs)
    if any(isinstance(part, str) for part in given):
        raise ProgramError(
            f"input_roles must map names of inputs to roles, not {input_roles!r:.60}",
            ['input_roles={"mask": "present"}'],
        )
    for name, meaning in pairs:
        require_choice("", f"the role of input {name!r}", meaning, MEANINGS)
    return pairs
