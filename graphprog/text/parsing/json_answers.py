"""JSON in generated text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from graphprog.errors import FileError, ProgramError
from graphprog.spec.checks import require_choice, require_text
from graphprog.spec.registry import spec
from graphprog.text.parsing.answers import AnswerParser, Unparsed
from graphprog.text.parsing.schema import check_schema, mismatch
from graphprog.utils.json import check_json, parse_json, render_json

_OPENING = {"object": "{", "array": "["}


@spec("parse-json")
@dataclass(frozen=True)
class ParseJSON(AnswerParser):
    """Parse a JSON object or array within other text; made by ``Parse.json``.

    These keywords of JSON Schema are supported: ``type`` (one name), ``properties``, ``required``,
    ``items`` (one schema for all items) and ``enum``. Annotations (``title``, ``description`` and
    the like) are kept; any other keyword is refused rather than ignored.

    Attributes:
        schema: JSON text of the schema. Its top-level ``type`` is ``object`` (the default) or
            ``array``.
        pick: ``last`` or ``first`` of the values of that type in the text, whether they match the
            schema or not. Values nested in others of that type do not count.

    Example:
        >>> parse = gp.text.ParseJSON('{"type": "object", "required": ["name"]}')
        >>> parse('Here it is: {"name": "ant"}.')
        {'name': 'ant'}
    """

    schema: str
    pick: Literal["last", "first"] = "last"

    def __post_init__(self) -> None:
        require_text(self.kind, "schema", self.schema)
        require_choice(self.kind, "pick", self.pick, ("last", "first"))
        try:
            schema = parse_json(self.schema, "schema")
            check_schema(schema)
            object.__setattr__(self, "schema", render_json(schema, "schema"))
        except (FileError, ProgramError) as error:
            raise ProgramError(f"{self.kind}: {error.what}", error.remedies) from error
        if schema.get("type", "object") not in _OPENING:
            raise ProgramError(
                f"{self.kind}: the answer is of type {schema['type']}, not object or array",
                ["use Parse.number() for a number", "use Parse(pattern) for text"],
            )

    @classmethod
    def of(cls, schema: Mapping[str, Any] | str, pick: Literal["last", "first"]) -> ParseJSON:
        """Make a parser from a schema, given as JSON text or as a mapping."""
        if isinstance(schema, str):
            return cls(schema, pick)
        try:
            return cls(render_json(dict(schema), "schema"), pick)
        except FileError as error:
            raise ProgramError(f"{cls.kind}: {error.what}", error.remedies) from error

    def __call__(self, text: str) -> dict[str, Any] | list[Any] | Unparsed:
        """Parse a text: the picked value if it matches the schema, else :class:`Unparsed`."""
        schema = json.loads(self.schema)
        name = schema.get("type", "object")
        found = list(_values(text, _OPENING[name]))
        if not found:
            return Unparsed(text, f"there is no JSON {name}")
        value: dict[str, Any] | list[Any] = found[-1 if self.pick == "last" else 0]
        try:
            check_json(value, "the value")
        except FileError as error:
            return Unparsed(text, error.what)
        wrong = mismatch(value, schema)
        return value if wrong is None else Unparsed(text, wrong)


def _values(text: str, opening: str) -> Iterator[Any]:
    """Outermost values that begin with a bracket, in order."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    end = 0
    for match in re.finditer(re.escape(opening), text):
        if match.start() < end:
            continue
        try:
            value, end = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue  # a bracket in prose, or a truncated value
        yield value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
