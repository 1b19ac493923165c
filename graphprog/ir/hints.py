"""Hints: facts about a model beyond its operations, such as normalization and labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphprog.errors import ProgramError
from graphprog.spec.checks import require_choice

HINTS = ("mean", "std", "labels", "tokenizer", "sample_rate")
"""``mean`` and ``std`` per channel, in units of [0, 1]; names of the classes, in order; name or
folder of the tokenizer; ``sample_rate`` of audio in Hz."""


def checked_hints(hints: Mapping[str, Any] | None) -> dict[str, Any]:
    """Check hints, and convert lists to tuples.

    Raises:
        ProgramError: a hint is unknown or has the wrong type.
    """
    found: dict[str, Any] = {}
    for name, value in (hints or {}).items():
        require_choice("", "a hint", name, HINTS)
        if name == "tokenizer":
            found[name] = str(value)
            continue
        if name == "sample_rate":
            found[name] = _positive(name, value)
            continue
        kind: Any = str if name == "labels" else (int, float)
        parts = (value,) if isinstance(value, int | float) else tuple(value)
        if isinstance(value, str) or not all(isinstance(part, kind) for part in parts):
            raise ProgramError(f"hint {name!r} is {value!r:.60}", [f"a list, one {name} each"])
        found[name] = parts
    return found


def _positive(name: str, value: Any) -> int:
    if not isinstance(value, int) or value <= 0:
        raise ProgramError(f"hint {name!r} is {value!r:.60}", ["a whole number above 0, in Hz"])
    return value
