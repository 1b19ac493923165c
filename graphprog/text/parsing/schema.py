"""Check answers against a subset of JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from graphprog.errors import ProgramError
from graphprog.spec.checks import require_choice

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
_KEYWORDS = ("type", "properties", "required", "items", "enum")
_REMARKS = ("$schema", "$id", "title", "description", "examples", "default")


def check_schema(schema: Any, place: str = "schema") -> None:
    """Refuse schemas with keywords other than the supported ones and annotations.

    Supported are ``type`` (one name), ``properties``, ``required``, ``items`` (one schema for all
    items) and ``enum``.

    Raises:
        ProgramError: names the place in the schema.
    """
    if not isinstance(schema, Mapping):
        raise ProgramError(f"{place} must be an object, not {schema!r:.60}")
    for keyword, value in schema.items():
        if keyword in _REMARKS:
            continue
        if keyword not in _KEYWORDS:
            raise ProgramError(
                f"{place}: keyword {keyword!r:.60} is not supported; supported are "
                f"{', '.join(_KEYWORDS)}",
                ["remove the keyword and check the parsed values yourself"],
            )
        _CHECKS[keyword](value, f"{place}.{keyword}")


def mismatch(value: Any, schema: Mapping[str, Any], place: str = "") -> str | None:
    """Describe the first mismatch between a JSON value and a schema; None if there is none."""
    shown = place or "the value"
    name = schema.get("type")
    if name is not None and not _is(value, name):
        return f"{shown} is not of type {name}"
    if "enum" in schema and json_key(value) not in map(json_key, schema["enum"]):
        return f"{shown} is not one of {json.dumps(schema['enum'], ensure_ascii=False)}"
    inner: list[tuple[Any, Mapping[str, Any], str]] = []
    if isinstance(value, dict):
        for key in schema.get("required", ()):
            if key not in value:
                return f"{shown} has no {key!r}"
        properties = schema.get("properties", {})
        inner = [
            (value[key], properties[key], f"{place}.{key}") for key in properties if key in value
        ]
    elif isinstance(value, list) and "items" in schema:
        inner = [(item, schema["items"], f"{place}[{i}]") for i, item in enumerate(value)]
    return next((wrong for part in inner if (wrong := mismatch(*part)) is not None), None)


def _is(value: Any, name: str) -> bool:
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def json_key(value: Any) -> str:
    """Canonical text of a JSON value: 1 equals 1.0 but not ``true``; key order does not matter."""
    return json.dumps(_whole(value), sort_keys=True)


def _whole(value: Any) -> Any:
    """Replace whole-number floats in a JSON value by integers."""
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _check_properties(value: Any, place: str) -> None:
    if not isinstance(value, Mapping):
        raise ProgramError(f"{place} must be an object, not {value!r:.60}")
    for key, schema in value.items():
        check_schema(schema, f"{place}.{key}")


def _check_required(value: Any, place: str) -> None:
    if not isinstance(value, list | tuple) or not all(isinstance(key, str) for key in value):
        raise ProgramError(f"{place} must be a list of names, not {value!r:.60}")


def _check_enum(value: Any, place: str) -> None:
    if not isinstance(value, list | tuple) or not value:
        raise ProgramError(f"{place} must be a list of values, not {value!r:.60}")


_CHECKS: dict[str, Callable[[Any, str], None]] = {
    "type": lambda value, place: require_choice("", place, value, TYPES),
    "properties": _check_properties,
    "required": _check_required,
    "items": check_schema,
    "enum": _check_enum,
}
