"""Specs: frozen dataclasses that print as text, parse back, and travel as JSON.

Programs, manipulations, alignments, masks and passes are all specs. One grammar serves them::

    insert{name="border" op=additive{at="input" mask=border-mask{inner=48} value=learnable{}}}

A value is a string, a number, ``true``/``false``/``null``, a list ``[a b]``, a spec
``kind{field=value ...}``, or ``@name``: a tensor kept beside the text under that name.
Fields that equal their default are left out, so adding a field with a default keeps old text valid.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, ClassVar, TypeVar

import torch

from graphprog.errors import FileError, ProgramError

_KINDS: dict[str, type[Spec]] = {}
_MAX_DEPTH = 32


@dataclasses.dataclass(frozen=True)
class Spec:
    """Base of all specs; subclasses are registered with :func:`spec`."""

    kind: ClassVar[str] = ""

    def __str__(self) -> str:
        return format_spec(self)


_S = TypeVar("_S", bound=type[Spec])


def spec(kind: str) -> Callable[[_S], _S]:
    """Register a frozen dataclass under the name it has in text and JSON.

    Args:
        kind: lower-case words joined by hyphens, unique in the process.

    Raises:
        ProgramError: another class already has this name.
    """

    def register(cls: _S) -> _S:
        known = _KINDS.get(kind)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ProgramError(
                f"spec kind {kind!r} is taken by {known.__module__}.{known.__qualname__}",
                ["choose another kind for " + cls.__qualname__],
            )
        cls.kind = kind
        _KINDS[kind] = cls
        return cls

    return register


def tensors_equal(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two tensors have the same shape, dtype and bits, NaN included."""
    return (
        left.shape == right.shape
        and left.dtype == right.dtype
        and bool(torch.equal(torch.nan_to_num(left), torch.nan_to_num(right)))
    )


def fields_of(value: Spec) -> dict[str, Any]:
    """The fields of a spec that differ from their defaults, in order of declaration."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        current = getattr(value, field.name)
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if (
            isinstance(current, torch.Tensor)
            or default is dataclasses.MISSING
            or current != default
        ):
            found[field.name] = current
    return found


def to_json(value: Any, tensors: MutableMapping[str, torch.Tensor], path: str = "") -> Any:
    """Turn a spec into plain JSON; its tensors go into ``tensors`` under dotted field paths."""
    if isinstance(value, torch.Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, Spec):
        prefix = path + "." if path else ""
        inner = {k: to_json(v, tensors, prefix + k) for k, v in fields_of(value).items()}
        return {"kind": value.kind, **inner}
    if isinstance(value, list | tuple):
        return [to_json(v, tensors, f"{path}.{i}" if path else str(i)) for i, v in enumerate(value)]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ProgramError(f"{path or 'spec'}: a {type(value).__name__} cannot be part of a spec")


def from_json(value: Any, tensors: Mapping[str, torch.Tensor], depth: int = 0) -> Any:
    """Inverse of :func:`to_json`; lists come back as tuples.

    Raises:
        FileError: an unknown kind or field, a missing tensor, or nesting beyond reason.
        ProgramError: fields that the spec itself rejects.
    """
    if depth > _MAX_DEPTH:
        raise FileError(f"spec nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, list):
        return tuple(from_json(item, tensors, depth + 1) for item in value)
    if not isinstance(value, dict):
        return value
    if set(value) == {"tensor"}:
        if value["tensor"] not in tensors:
            raise FileError(f"tensor {value['tensor']!r} is named by the spec but not stored")
        return tensors[value["tensor"]]
    return build(
        value.get("kind"),
        {k: from_json(v, tensors, depth + 1) for k, v in value.items() if k != "kind"},
    )


def build(kind: Any, fields: Mapping[str, Any]) -> Spec:
    """Make the spec of a kind from its fields, rejecting what the class does not declare."""
    cls = _KINDS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise FileError(
            f"unknown spec kind {kind!r}",
            ["import the package that defines it", "update graphprog"],
        )
    known = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise FileError(f"{kind}: unknown field {unknown[0]!r}; known: {', '.join(sorted(known))}")
    try:
        return cls(**fields)
    except (TypeError, ValueError, AttributeError) as error:
        raise FileError(f"{kind}: {error}") from error


def format_spec(value: Any, tensors: MutableMapping[str, torch.Tensor] | None = None) -> str:
    """Text of a spec; tensors print as ``@path`` and are put into ``tensors`` when given."""
    return _format(to_json(value, {} if tensors is None else tensors))


def _format(tree: Any) -> str:
    if isinstance(tree, list):
        return "[" + " ".join(_format(item) for item in tree) + "]"
    if isinstance(tree, dict):
        if set(tree) == {"tensor"}:
            return "@" + str(tree["tensor"])
        body = " ".join(f"{k}={_format(v)}" for k, v in tree.items() if k != "kind")
        return f"{tree['kind']}{{{body}}}" if body else str(tree["kind"])
    return json.dumps(tree, ensure_ascii=False)


def parse_spec(text: str, tensors: Mapping[str, torch.Tensor] | None = None) -> Any:
    """Inverse of :func:`format_spec`.

    Raises:
        FileError: text outside the grammar, with the position and what was expected there.
    """
    parser = Parser(text)
    tree = parser.value(0)
    parser.end()
    return from_json(tree, tensors or {})


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
        if depth > _MAX_DEPTH:
            raise FileError(f"spec text nested deeper than {_MAX_DEPTH} levels")
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
