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
    """A JSON object or array within text, fences and words around it; made by ``Parse.json``.

    Of JSON Schema, these keywords are known: ``type`` (one name), ``properties``, ``required``,
    ``items`` (one schema for all items) and ``enum``. Remarks (``title``, ``description`` and their
    like) are kept, and any other keyword is refused rather than ignored.

    Attributes:
        schema: JSON text of the schema. Its own ``type`` is ``object`` or ``array``; ``object``
            unless given.
        pick: ``last`` or ``first`` of the values of that type that stand in the text, whether they
            fit or not. Values inside of others of that type do not count.

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
                ["Parse.number() for a number", "Parse(pattern) for text"],
            )

    @classmethod
    def of(cls, schema: Mapping[str, Any] | str, pick: Literal["last", "first"]) -> ParseJSON:
        """The parser of a schema, as text or as the value that the text stands for."""
        if isinstance(schema, str):
            return cls(schema, pick)
        try:
            return cls(render_json(dict(schema), "schema"), pick)
        except FileError as error:
            raise ProgramError(f"{cls.kind}: {error.what}", error.remedies) from error

    def __call__(self, text: str) -> dict[str, Any] | list[Any] | Unparsed:
        """The value that is picked, where it fits the schema."""
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
    """Values that begin with a bracket and lie in no other such value, in order."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    end = 0
    for match in re.finditer(re.escape(opening), text):
        if match.start() < end:
            continue
        try:
            value, end = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue  # a bracket of the prose, or a value that breaks off
        yield value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
