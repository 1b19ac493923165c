"""The text form of specs: a JSON tree of :func:`graphprog.spec.to_json` printed and parsed."""

from __future__ import annotations

import json
import re
from typing import Any

from graphprog.errors import FileError

MAX_DEPTH = 32
"""How deep specs may nest in text and in JSON."""


def format_tree(tree: Any) -> str:
    """Text of the JSON form of a spec."""
    if isinstance(tree, list):
        return "[" + " ".join(format_tree(item) for item in tree) + "]"
    if isinstance(tree, dict):
        if set(tree) == {"tensor"}:
            return "@" + str(tree["tensor"])
        if set(tree) == {"number"}:
            return str(tree["number"])
        body = " ".join(f"{k}={format_tree(v)}" for k, v in tree.items() if k != "kind")
        return f"{tree['kind']}{{{body}}}" if body else str(tree["kind"])
    return json.dumps(tree, ensure_ascii=False)


_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<tensor>@[\w.@/-]+)"""
    r"""|(?P<number>-?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|Infinity)|NaN)"""
    r"""|(?P<name>[A-Za-z_][\w-]*)|(?P<mark>[{}\[\]=;]))"""
)


class Parser:
    """Recursive descent over the grammar above; ``tree`` shapes are those of :func:`to_json`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def peek(self) -> tuple[str, str] | None:
        """Kind and text of the next token, or None at the end."""
        match = _TOKEN.match(self.text, self.position)
        if match is None:
            if self.text[self.position :].strip():
                raise self.error("a value")
            return None
        kind = match.lastgroup or ""
        return kind, match.group(kind)

    def take(self, expected: str | None = None) -> tuple[str, str]:
        """Consume the next token, which must read ``expected`` when that is given."""
        token = self.peek()
        if token is None or (expected is not None and token[1] != expected):
            raise self.error(repr(expected) if expected else "a value")
        match = _TOKEN.match(self.text, self.position)
        assert match is not None
        self.position = match.end()
        return token

    def error(self, expected: str) -> FileError:
        """What was expected here, with the text around the place."""
        near = self.text[self.position : self.position + 24]
        return FileError(f"spec text, position {self.position}: expected {expected} at {near!r}")

    def end(self) -> None:
        """Fail unless the whole text was read."""
        if self.peek() is not None:
            raise self.error("the end")

    def value(self, depth: int) -> Any:
        """Read one value."""
        if depth > MAX_DEPTH:
            raise FileError(f"spec text nested deeper than {MAX_DEPTH} levels")
        start = self.position
        kind, text = self.take()
        if kind in ("string", "number"):
            try:
                return json.loads(text)
            except ValueError as error:
                raise FileError(f"spec text: {text!r} is not a value: {error}") from error
        if kind == "tensor":
            return {"tensor": text[1:]}
        if text == "[":
            items = []
            while (token := self.peek()) is not None and token[1] != "]":
                items.append(self.value(depth + 1))
            self.take("]")
            return items
        if kind == "name":
            constants: dict[str, Any] = {"true": True, "false": False, "null": None}
            return constants[text] if text in constants else self.fields(text, depth)
        self.position = start
        raise self.error("a value")

    def fields(self, kind: str, depth: int) -> dict[str, Any]:
        """Read the optional ``{field=value ...}`` after a kind."""
        tree: dict[str, Any] = {"kind": kind}
        token = self.peek()
        if token is None or token[1] != "{":
            return tree
        self.take("{")
        while (token := self.peek()) is not None and token[1] != "}":
            _, name = self.take()
            self.take("=")
            if name in tree:
                raise FileError(f"{kind}: field {name!r} appears twice")
            tree[name] = self.value(depth + 1)
        self.take("}")
        return tree
