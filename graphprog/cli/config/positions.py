"""Line numbers of the keys of a TOML document, which ``tomllib`` does not keep."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

Place = tuple[str | int, ...]
"""Keys that lead to a value, and numbers of entries of lists."""


def positions(text: str) -> dict[Place, int]:
    """Return the line, from 1, of every key and table of a valid document.

    A line begins a statement if all before it is a valid document.
    """
    lines = text.splitlines()
    starts = [number for number in range(len(lines)) if _is_valid(lines[:number])]
    found: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        chunk = "\n".join(lines[start:end])
        content = tomllib.loads(chunk)
        if chunk.lstrip().startswith("["):
            table = _header(content, chunk.lstrip().startswith("[["), counts)
            found.setdefault(table, start + 1)
        else:
            for path in _paths(content):
                found.setdefault(table + path, start + 1)
    return found


def line_of(place: Place, found: dict[Place, int]) -> int:
    """Return the line of a value, or of the table that it is in; 1 if neither is written."""
    for length in range(len(place), 0, -1):
        if place[:length] in found:
            return found[place[:length]]
    return 1


def _is_valid(lines: list[str]) -> bool:
    try:
        tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError:
        return False
    return True


def _header(content: dict[str, Any], repeated: bool, counts: dict[Place, int]) -> Place:
    """Return the path of a table; entries of lists of tables are counted."""
    place: Place = ()
    inner: Any = content
    names: list[str] = []
    while isinstance(inner, dict) and inner:
        ((name, inner),) = inner.items()
        names.append(name)
    for number, name in enumerate(names):
        place += (name,)
        if repeated and number == len(names) - 1:
            counts[place] = counts.get(place, -1) + 1
        if place in counts:
            place += (counts[place],)
    return place


def _paths(content: Any) -> Iterator[Place]:
    """Yield the paths of a value and of all in it."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield (key,)
        if isinstance(value, dict | list):
            yield from ((key, *path) for path in _paths(value))
