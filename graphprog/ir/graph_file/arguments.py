"""Arguments of operations, and structures of values, as JSON.

JSON values are themselves, lists are lists. Any other value is an object of one entry, whose name
is its type: ``{"node": "relu"}``, ``{"dtype": "float32"}``, ``{"tuple": [...]}``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphprog.errors import FileError

_LARGEST = 2**63
_KINDS: dict[str, type] = {
    "dtype": torch.dtype,
    "layout": torch.layout,
    "memory_format": torch.memory_format,
}


def argument_json(value: Any) -> Any:
    """Convert one argument to JSON.

    Raises:
        FileError: a file cannot hold such a value.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    for name, kind in _KINDS.items():
        if isinstance(value, kind):
            return {name: str(value).removeprefix("torch.")}
    if isinstance(value, slice):
        return {"slice": [argument_json(part) for part in (value.start, value.stop, value.step)]}
    if isinstance(value, complex):
        return {"complex": [argument_json(part) for part in (value.real, value.imag)]}
    if isinstance(value, tuple):
        return {"tuple": [argument_json(part) for part in value]}
    if isinstance(value, list):
        return [argument_json(part) for part in value]
    raise FileError(f"an argument of type {type(value).__name__} cannot be stored")


def argument_of(value: Any, nodes: Mapping[str, fx.Node]) -> Any:
    """Convert JSON to an argument.

    Args:
        value: the JSON.
        nodes: the nodes so far, by name.

    Raises:
        FileError: it is not an argument, or reads a node that does not come before.
    """
    if isinstance(value, int) and abs(value) >= _LARGEST:
        raise FileError(f"the number {value!r:.40} is larger than any argument")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [argument_of(part, nodes) for part in value]
    if not isinstance(value, dict) or len(value) != 1:
        raise FileError(f"{value!r:.80} is not an argument")
    ((kind, held),) = value.items()
    if kind == "node":
        if held not in nodes:
            raise FileError(f"it reads {held!r:.80}, but no operation before it has that name")
        return nodes[held]
    if kind in ("tuple", "slice", "complex") and isinstance(held, list):
        parts = [argument_of(part, nodes) for part in held]
        return _compound(kind, parts)
    if isinstance(held, str):
        return _named(kind, held)
    raise FileError(f"{value!r:.80} is not an argument")


def _compound(kind: str, parts: list[Any]) -> Any:
    if kind == "tuple":
        return tuple(parts)
    if kind == "slice" and len(parts) == 3:
        return slice(*parts)
    if kind == "complex" and len(parts) == 2 and all(type(part) is float for part in parts):
        return complex(*parts)
    raise FileError(f"{parts!r:.80} is not a {kind}")


def _named(kind: str, text: str) -> Any:
    if kind == "float" and text in ("inf", "-inf", "nan"):
        return float(text)
    if kind == "device":
        try:
            return torch.device(text)
        except RuntimeError as error:
            raise FileError(f"{text!r:.40} is not a device: {error}") from error
    found = getattr(torch, text, None) if kind in _KINDS and text.isidentifier() else None
    if found is None or not isinstance(found, _KINDS[kind]):
        raise FileError(f"{text!r:.80} is not a {kind:.40} of PyTorch {torch.__version__}")
    return found


def structure_json(tree: pytree.TreeSpec, results: bool) -> Any:
    """Convert the structure of arguments or results to JSON; ``"*"`` is a leaf.

    Args:
        tree: the structure.
        results: convert a result of a custom class, such as a dataclass of a model library, to a
            dictionary.

    Raises:
        FileError: it has values of other classes.
    """
    return _structure(pytree.tree_unflatten(["*"] * tree.num_leaves, tree), results)


def _structure(value: Any, results: bool) -> Any:
    if isinstance(value, str) and value == "*":
        return value
    if type(value) in (list, tuple):
        return {type(value).__name__: [_structure(part, results) for part in value]}
    fields = _fields(value) if results or type(value) is dict else None
    if fields is None or not all(isinstance(name, str) for name in fields):
        raise FileError(
            f"arguments or results of type {type(value).__name__} cannot be stored",
            ["wrap the model in a module that takes and returns tensors, tuples, lists or dicts"],
        )
    return {"dict": [[name, _structure(part, results)] for name, part in fields.items()]}


def _fields(value: Any) -> dict[Any, Any] | None:
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value):
        named = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: part for name, part in named.items() if part is not None}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        named_tuple: dict[Any, Any] = value._asdict()
        return named_tuple
    return None


def structure_of(value: Any) -> pytree.TreeSpec:
    """Convert JSON to a structure.

    Raises:
        FileError: it is not a structure.
    """
    return pytree.tree_structure(_marks(value))


def _marks(value: Any) -> Any:
    if value == "*":
        return 0
    if isinstance(value, dict) and len(value) == 1:
        ((kind, parts),) = value.items()
        if kind in ("list", "tuple") and isinstance(parts, list):
            found = [_marks(part) for part in parts]
            return found if kind == "list" else tuple(found)
        if kind == "dict" and isinstance(parts, list):
            pairs = [(str(name), _marks(part)) for name, part in parts]
            return dict(pairs)
    raise FileError(f"{value!r:.80} is not a structure of arguments or results")
