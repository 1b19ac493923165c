"""Reading of a configuration: all mistakes at once, each with its line."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from graphprog.cli.config.checks import found_mistakes
from graphprog.cli.config.mistakes import Mistake, mistakes_of
from graphprog.cli.config.positions import Place, line_of, positions
from graphprog.cli.config.schema import Configuration
from graphprog.errors import FileError


def read_configuration(path: Path, changes: Sequence[str] = ()) -> Configuration:
    """Read a configuration and check it as a whole, before anything that takes time.

    Args:
        path: a TOML file.
        changes: ``key=value``, such as ``train.epochs=5``, which come after the file.

    Raises:
        FileError: it cannot be read, or has mistakes: lists all of them.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(
            f"{path}: cannot be read: {error}", ["graphprog init, which writes a configuration"]
        ) from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FileError(f"{path}: is not TOML: {error}") from error
    changed = dict(_change(document, one) for one in changes)
    return checked(document, str(path), positions(text), changed)


def checked(
    document: dict[str, Any],
    name: str,
    lines: dict[Place, int] | None = None,
    changed: dict[Place, str] | None = None,
) -> Configuration:
    """Check a document against the schema, and what it names.

    Args:
        document: the values.
        name: of the document, for the message.
        lines: of keys, as far as they are known.
        changed: places that come from ``--set``, and the words there.

    Raises:
        FileError: it has mistakes: lists all of them.
    """
    configuration, found = None, list[Mistake]()
    try:
        configuration = Configuration.model_validate(document)
    except ValidationError as error:
        found = mistakes_of(error, document)
    found += found_mistakes(document, [one.place for one in found])
    if configuration is not None and not found:
        return configuration

    def place(one: Mistake) -> tuple[int, str]:
        given = next((w for p, w in (changed or {}).items() if one.place[: len(p)] == p), "")
        number = 0 if given or lines is None else line_of(one.place, lines)
        return number, f"--set {given}" if given else f"line {number}" if number else ""

    rows = []
    for one in sorted(found, key=lambda one: place(one)[0]):
        where = place(one)[1]
        rows.append(f"  {where}{': ' if where else ''}{one.key}: {one.text}")
    count = f"{len(rows)} mistake{'s' if len(rows) > 1 else ''}"
    raise FileError("\n".join([f"{name}: {count}", *rows]))


def _change(document: dict[str, Any], text: str) -> tuple[Place, str]:
    """Put ``key=value`` into a document; return its place.

    Raises:
        FileError: it is not a change of that form.
    """
    key, separator, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not separator or not all(parts):
        raise FileError(f"--set {text}: not key=value", ["--set train.epochs=5"])
    inner = document
    for part in parts[:-1]:
        below = inner.setdefault(part, {})
        if not isinstance(below, dict):
            raise FileError(f"--set {text}: {part} is not a table")
        inner = below
    inner[parts[-1]] = _value(value)
    return tuple(parts), text


def _value(text: str) -> Any:
    """Return a value as TOML reads it; anything else is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def schema_text() -> str:
    """Return the schema as JSON, for editors."""
    schema = Configuration.model_json_schema()
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
