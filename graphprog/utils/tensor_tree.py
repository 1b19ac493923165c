"""Nested state as JSON and named tensors, without pickle."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import torch

from graphprog.errors import TrainingError


def checksum(tensors: Iterable[torch.Tensor], start: int = 0) -> int:
    """Return the CRC-32 of the bytes of tensors, in order, continued from ``start``."""
    for tensor in tensors:
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        start = zlib.crc32(data.numpy().data, start)
    return start


def encode(value: Any, tensors: MutableMapping[str, torch.Tensor], name: str) -> Any:
    """Encode nested state as JSON; its tensors go to ``tensors``, on the CPU, under ``name``.

    Raises:
        TrainingError: something other than tensors, numbers, text, None, lists, tuples, dicts.
    """
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        pairs = value.items()
        return {"dict": [[key, encode(item, tensors, f"{name}.{key}")] for key, item in pairs]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [encode(item, tensors, f"{name}.{i}") for i, item in enumerate(value)]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TrainingError(
        f"{name}: a {type(value).__name__} cannot be kept in a checkpoint",
        ["train without checkpoint=", "use an optimizer whose state has only tensors and numbers"],
    )


def decode(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Inverse of :func:`encode`.

    Raises:
        KeyError: a tensor is missing.
        ValueError: the JSON is not an encoded state.
    """
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "dict":
        return {key: decode(item, tensors) for key, item in inner}
    if kind in ("list", "tuple"):
        items = [decode(item, tensors) for item in inner]
        return items if kind == "list" else tuple(items)
    if kind == "float":
        return float(inner)
    raise ValueError(f"unknown kind of state {kind!r:.40}")
