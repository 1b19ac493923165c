"""Mistakes in a configuration as texts: what is wrong, and what was perhaps meant."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from graphprog.cli.config.positions import Place
from graphprog.cli.config.schema import Configuration, Section
from graphprog.sources.model_name import nearest


@dataclasses.dataclass(frozen=True)
class Mistake:
    """What is wrong at a place of a configuration."""

    place: Place
    text: str

    @property
    def key(self) -> str:
        """The place as it is written in ``--set``."""
        shown = ""
        for part in self.place:
            dot = "." if shown else ""
            shown += f"[{part}]" if isinstance(part, int) else f"{dot}{part}"
        return shown


_TYPES = {
    "string": "text in quotes",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a table",
    "model": "a table",
    "none": "nothing",
}


def mistakes_of(error: ValidationError, document: Mapping[str, Any]) -> list[Mistake]:
    """Return the mistakes that pydantic found, one for each place.

    Args:
        error: of the schema.
        document: what it was given.
    """
    grouped: dict[Place, list[Any]] = {}
    for one in error.errors():
        grouped.setdefault(_written(one["loc"], one["type"], document), []).append(one)
    return [_mistake(place, group) for place, group in grouped.items()]


def _written(location: Place, kind: str, document: Any) -> Place:
    """Return the part of a location that is in the document; the rest names types of a union."""
    place: Place = ()
    for part in location:
        inside = isinstance(document, Mapping) and part in document
        inside |= isinstance(document, list) and isinstance(part, int) and part < len(document)
        if not inside:
            return (*place, part) if kind == "missing" else place
        document = document[part]
        place += (part,)
    return place


def _mistake(place: Place, group: list[Any]) -> Mistake:
    kind, value, context = group[0]["type"], group[0]["input"], group[0].get("ctx", {})
    if kind == "missing":
        return Mistake(place, "is missing")
    if kind == "extra_forbidden":
        known = [*_section(place[:-1]).model_fields]
        return Mistake(
            place, f"unknown key{nearest(str(place[-1]), known)}; known: {', '.join(known)}"
        )
    texts = dict.fromkeys(text for one in group for text in _wanted(one))
    shown = f"must be {' or '.join(texts)}, not {value!r:.60}"
    choices = context.get("expected", "") if kind == "literal_error" else ""
    if isinstance(value, str) and choices:
        shown += nearest(value, choices.replace("'", "").replace(" or ", ", ").split(", "))
    return Mistake(place, shown)


def _wanted(one: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was wanted in the place of a value."""
    kind, context = one["type"], one.get("ctx", {})
    bounds = {
        "greater_than_equal": ("at least", "ge"),
        "greater_than": ("above", "gt"),
        "less_than": ("below", "lt"),
        "too_short": ("of length at least", "min_length"),
        "too_long": ("of length at most", "max_length"),
    }
    base = kind.rpartition("_")[0]
    if kind in bounds:
        word, name = bounds[kind]
        yield f"{word} {context[name]:g}"
    elif kind == "literal_error":
        yield f"one of {context['expected'].replace(chr(39), '').replace(' or ', ', ')}"
    elif kind == "string_too_short":
        yield "text that is not empty"
    elif kind == "none_required":
        return
    elif base in _TYPES:
        yield _TYPES[base]
    else:
        yield str(one["msg"])


def _section(place: Place) -> type[Section]:
    """Return the section at a place."""
    found: type[Section] = Configuration
    for part in place:
        if isinstance(part, str) and part in found.model_fields:
            found = next(_sections(found.model_fields[part].annotation), found)
    return found


def _sections(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _sections(inner)
