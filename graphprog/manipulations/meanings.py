"""What the entries of a model's other inputs mean, where they carry an axis that gets longer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from graphprog.errors import ProgramError

MEANINGS = ("present", "zero", "positions")


def checked_meanings(
    input_roles: Mapping[str, str] | Iterable[tuple[str, str]],
) -> tuple[tuple[str, str], ...]:
    """Meanings of inputs by name, as pairs; those of a mapping in the order of names.

    Raises:
        ProgramError: one is unknown.
    """
    pairs = tuple(sorted(input_roles.items()) if isinstance(input_roles, Mapping) else input_roles)
    for name, meaning in pairs:
        if meaning not in MEANINGS:
            raise ProgramError(
                f"the meaning {meaning!r} of input {name!r} is unknown; known: "
                + ", ".join(MEANINGS)
            )
    return pairs
