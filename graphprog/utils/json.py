"""Strict JSON (RFC 8259) with bounded depth, safe for hostile text."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from graphprog.errors import FileError

MAX_DEPTH = 64


def parse_json(text: str, place: str) -> Any:
    """Read one JSON value.

    Args:
        text: the JSON text.
        place: what the text is, for error messages.

    Raises:
        FileError: not JSON, a name twice in one object, ``NaN`` or an infinity (which Python
            reads although they are not JSON), nesting beyond ``MAX_DEPTH``, or text that is not
            Unicode (a lone surrogate).
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise FileError(f"{place}: nested deeper than {MAX_DEPTH} levels") from error
    except ValueError as error:
        raise FileError(f"{place}: not valid JSON: {error}") from error
    check_json(value, place)
    return value


def render_json(value: Any, place: str) -> str:
    """Write one JSON value as text; tuples become arrays.

    Raises:
        FileError: what :func:`parse_json` would refuse, with its place in ``value``.
    """
    check_json(value, place)
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise FileError(f"{place}: cannot be written as JSON: {error}") from error


def check_json(value: Any, place: str) -> None:
    """Check that ``value`` consists of JSON values: see :func:`parse_json`.

    Raises:
        FileError: naming the place, such as ``document.training.loss``.
    """
    _check(value, (None, place), 0)


# The place of a value: the trail of its container and the step from there. It is joined into text
# only for an error, because hostile names can be megabytes long.
_Trail = tuple[Any, str | int]


def _check(value: Any, trail: _Trail, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise FileError(f"{_place(trail)}: nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise FileError(f"{_place(trail)}: the name {key!r} is not a string")
            _check_text(key, trail)
            _check(item, (trail, key), depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(item, (trail, index), depth + 1)
    elif isinstance(value, str):
        _check_text(value, trail)
    elif isinstance(value, float) and not math.isfinite(value):
        raise FileError(
            f"{_place(trail)}: JSON has no {value!r}", ["use null for a missing number"]
        )
    elif not (value is None or isinstance(value, int | float)):
        raise FileError(f"{_place(trail)}: a {type(value).__name__} is not a JSON value")


def _check_text(text: str, trail: _Trail) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FileError(f"{_place(trail)}: text with a lone surrogate, not Unicode") from error


def _place(trail: _Trail) -> str:
    parent, step = trail
    shown = f"[{step}]" if isinstance(step, int) else step[:60]
    if parent is None:
        return shown
    joint = "" if isinstance(step, int) else "."
    return _place(parent) + joint + shown.encode("ascii", "backslashreplace").decode()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the name {repeated!r:.60} appears twice in one object")
    return found


def _refuse_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
