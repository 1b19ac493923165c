"""Specs: frozen dataclasses that print as text, parse back, and travel as JSON.

Programs, manipulations, alignments, masks and passes are all specs. One grammar serves them::

    insert{name="border" op=additive{at="input" mask=border-mask{inner=48} value=learnable{}}}

A value is a string, a number, ``true``/``false``/``null``, a list ``[a b]``, a spec
``kind{field=value ...}``, or ``@name``: a tensor kept beside the text under that name.
Fields that equal their default are left out, so adding a field with a default keeps old text valid.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.metadata
import math
import re
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, ClassVar, TypeVar

import torch

from graphprog.errors import FileError, ProgramError
from graphprog.spec.grammar import MAX_DEPTH, Parser, format_tree
from graphprog.spec.kinds import PLACES
from graphprog.spec.validation import check_names, check_types
from graphprog.utils.lazy import load

_KINDS: dict[str, type[Spec]] = {}
_KIND = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

ENTRY_POINTS = "graphprog.specs"
"""Entry point group by which other packages add passes, manipulations and alignments."""


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
        ProgramError: another class already has this name, or it is no such word.
    """

    def register(cls: _S) -> _S:
        if not _KIND.fullmatch(kind) or kind in ("true", "false", "null"):
            raise ProgramError(
                f"{kind!r} cannot be the kind of a spec", ["use lower-case words joined by hyphens"]
            )
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


def lookup(kind: str) -> type[Spec] | None:
    """The class of a kind, imported if it is one of graphprog's or an entry point."""
    if kind not in _KINDS and kind in PLACES:
        load(PLACES[kind])
    if kind not in _KINDS:
        for entry in importlib.metadata.entry_points(group=ENTRY_POINTS, name=kind):
            entry.load()
    return _KINDS.get(kind)


def fields_of(value: Spec) -> dict[str, Any]:
    """The fields of a spec that differ from their defaults, in order of declaration.

    Fields whose metadata say ``saved=False`` hold what neither text nor JSON can, and are left out.
    """
    found: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        if not field.metadata.get("saved", True):
            continue
        current = getattr(value, field.name)
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if default is dataclasses.MISSING or not _same(current, default):
            found[field.name] = current
    return found


def _same(left: Any, right: Any) -> bool:
    # Tensors count as different unless they are one, so that they are always kept.
    if isinstance(left, torch.Tensor) or isinstance(right, torch.Tensor):
        return left is right
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, Spec) and type(left) is type(right):
        names = [field.name for field in dataclasses.fields(left)]
        return all(_same(getattr(left, name), getattr(right, name)) for name in names)
    return bool(left == right)


def to_json(value: Any, tensors: MutableMapping[str, torch.Tensor], path: str = "") -> Any:
    """Turn a spec into plain JSON; its tensors go into ``tensors`` under dotted field paths."""
    if isinstance(value, torch.Tensor):
        for name, known in tensors.items():
            if known is value:  # one tensor, however many specs hold it
                return {"tensor": name}
        name = path or "value"  # a tensor that is the whole spec has no field
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Spec):
        prefix = path + "." if path else ""
        inner = {k: to_json(v, tensors, prefix + k) for k, v in fields_of(value).items()}
        return {"kind": value.kind, **inner}
    if isinstance(value, list | tuple):
        return [to_json(v, tensors, f"{path}.{i}" if path else str(i)) for i, v in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):  # JSON has no such numbers
        return {"number": "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ProgramError(f"{path or 'spec'}: a {type(value).__name__} cannot be part of a spec")


def from_json(value: Any, tensors: Mapping[str, torch.Tensor], depth: int = 0) -> Any:
    """Inverse of :func:`to_json`; lists come back as tuples.

    Raises:
        FileError: an unknown kind or field, a missing tensor, or nesting beyond reason.
        ProgramError: fields that the spec itself rejects.
    """
    if depth > MAX_DEPTH:
        raise FileError(f"spec nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, list):
        return tuple(from_json(item, tensors, depth + 1) for item in value)
    if not isinstance(value, dict):
        return value
    if set(value) == {"tensor"}:
        name = value["tensor"]
        if not isinstance(name, str) or name not in tensors:
            raise FileError(f"tensor {name!r:.80} is named by the spec but not stored")
        return tensors[name]
    if set(value) == {"number"}:
        if not isinstance(value["number"], str) or value["number"] not in _NOT_FINITE:
            raise FileError(f"number {value['number']!r:.80} in a spec")
        return _NOT_FINITE[value["number"]]
    return build(
        value.get("kind"),
        {k: from_json(v, tensors, depth + 1) for k, v in value.items() if k != "kind"},
    )


def build(kind: Any, fields: Mapping[str, Any]) -> Spec:
    """Make the spec of a kind from its fields, rejecting what the class does not declare."""
    cls = lookup(kind) if isinstance(kind, str) else None
    if cls is None:
        near = difflib.get_close_matches(str(kind)[:80], [*_KINDS, *PLACES], n=1)
        raise FileError(
            f"unknown spec kind {kind!r:.80}",
            [
                *(f"did you mean {one}?" for one in near),
                "import the package that defines it",
                "update graphprog",
            ],
        )
    check_names(cls, fields)
    try:
        made = cls(**fields)
    except (FileError, ProgramError):
        raise
    except Exception as error:  # the class may be anyone's, and the fields are a file's
        raise FileError(f"{kind}: {error}") from error
    check_types(cls, fields)  # after the class's own checks, which can say more
    return made


def format_spec(value: Any, tensors: MutableMapping[str, torch.Tensor] | None = None) -> str:
    """Text of a spec; tensors print as ``@path`` and are put into ``tensors`` when given."""
    return format_tree(to_json(value, {} if tensors is None else tensors))


def parse_spec(text: str, tensors: Mapping[str, torch.Tensor] | None = None) -> Any:
    """Inverse of :func:`format_spec`.

    Raises:
        FileError: text outside the grammar, with the position and what was expected there.
    """
    parser = Parser(text)
    tree = parser.value(0)
    parser.end()
    return from_json(tree, tensors or {})
