"""Structures of arguments and results in a ``.pt2`` file: lists, tuples and dictionaries."""

from __future__ import annotations

import json
from typing import Any

from graphprog.errors import FileError
from graphprog.utils.json import parse_json

_SEQUENCES = ("builtins.list", "builtins.tuple")
_MAPPINGS = ("builtins.dict", "collections.OrderedDict")
_LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}


def checked_structure(text: Any, place: str, results: bool) -> str:
    """Return the text of a structure that consists of lists, tuples and dictionaries only.

    Args:
        text: a tree spec as ``torch.export`` writes it.
        place: its name in the file, for messages.
        results: it is that of results; one of a class becomes a dictionary of its fields.

    Raises:
        FileError: it holds values of other classes, whose making may run code.
    """
    found = parse_json(text, place) if isinstance(text, str) else None
    if not isinstance(found, list) or len(found) != 2 or found[0] != 1:
        raise FileError(f"{place} is not a structure of arguments or results")
    return json.dumps([1, _node(found[1], place, results)])


def keyword_names(text: str) -> list[Any]:
    """Return the names of keyword arguments in the checked structure of arguments."""
    _, tree = json.loads(text)
    if tree["type"] != "builtins.tuple" or len(tree["children_spec"]) != 2:
        raise FileError("the structure of arguments is not that of a call")
    names: Any = json.loads(tree["children_spec"][1]["context"] or "[]")
    return names if isinstance(names, list) else []


def _node(node: Any, place: str, results: bool) -> dict[str, Any]:
    if not isinstance(node, dict) or set(node) != set(_LEAF):
        raise FileError(f"{place} is not a structure of arguments or results")
    kind, context, parts = node["type"], node["context"], node["children_spec"]
    if not isinstance(parts, list) or not isinstance(context, str | None):
        raise FileError(f"{place} is not a structure of arguments or results")
    if kind is None and context is None and not parts:
        return dict(_LEAF)
    inner = [_node(part, place, results) for part in parts]
    if kind in _SEQUENCES and context == "null":
        return {"type": kind, "context": "null", "children_spec": inner}
    keys = _keys(context, place)
    mapping = kind in _MAPPINGS
    if (mapping or results) and keys is not None and len(keys) == len(inner):
        kind = kind if mapping else "builtins.dict"
        return {"type": kind, "context": json.dumps(keys), "children_spec": inner}
    raise FileError(
        f"{place} holds a {kind!r:.80}, and only lists, tuples and dictionaries are made from a "
        "file",
        ["wrap the model in a module that takes and returns tensors, tuples, lists or dicts"],
    )


def _keys(context: str | None, place: str) -> list[str | int] | None:
    """Return the names of the parts of a dictionary, or of a result's fields."""
    found = parse_json(context, place) if context is not None else None
    if isinstance(found, list) and len(found) == 2 and all(isinstance(x, list) for x in found):
        found = found[0]  # of a dataclass: fields that have values, and those that are None
    if isinstance(found, list) and all(type(key) in (str, int) for key in found):
        return found if len(set(found)) == len(found) else None
    return None
