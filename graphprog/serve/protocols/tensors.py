"""Tensors of the Open Inference Protocol: in JSON, or as bytes after it."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphprog.serve.limits import RequestError

DATATYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    **{f"UINT{bits}": np.dtype(f"uint{bits}").type for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"int{bits}").type for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"float{bits}").type for bits in (16, 32, 64)},
}
NAMES = {np.dtype(kind).name: name for name, kind in DATATYPES.items()}
"""Datatype by the name of NumPy's."""

_KINDS = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}


def array_of(data: Any, name: str, kind: Any) -> np.ndarray:
    """Return the array of nested lists of numbers.

    Args:
        data: the lists.
        name: of the input, for messages.
        kind: type of the array; integers also become floats, nothing else is converted.

    Raises:
        RequestError: lists of different lengths, something else than numbers of that kind, or
            numbers that the type does not hold (400).
    """
    try:
        found = np.asarray(data)
    except (ValueError, OverflowError, RecursionError) as error:
        raise RequestError(400, f"{name}: not an array of numbers: {error}") from error
    wanted = np.dtype(kind)
    if found.size and found.dtype.kind not in _KINDS[wanted.kind]:
        raise RequestError(400, f"{name}: not an array of {wanted.name}, or lists differ in length")
    with np.errstate(over="ignore", invalid="ignore"):
        array = found.astype(wanted)
    if wanted.kind in "iu" and found.size and not np.array_equal(array, found):
        raise RequestError(400, f"{name}: numbers that {wanted.name} does not hold")
    return array


def from_json(
    name: str, datatype: str, shape: Sequence[int], data: Sequence[Any]
) -> np.ndarray | list[str]:
    """Return a tensor of JSON; strings of ``BYTES`` as a list.

    Raises:
        RequestError: the data are not of that type and shape (400).
    """
    if datatype == "BYTES":
        texts = [one for one in data if isinstance(one, str)]
        if len(texts) != len(data) or len(texts) != math.prod(shape):
            raise RequestError(400, f"{name}: not {math.prod(shape)} strings")
        return texts
    array = array_of(data, name, _kind(name, datatype))
    return _shaped(name, array, shape)


def from_bytes(
    name: str, datatype: str, shape: Sequence[int], data: memoryview
) -> np.ndarray | list[str]:
    """Return a tensor of bytes, little-endian; strings of ``BYTES`` as a list.

    Raises:
        RequestError: the bytes are not of that type and shape (400).
    """
    if datatype == "BYTES":
        texts = _strings(name, data)
        if len(texts) != math.prod(shape):
            raise RequestError(400, f"{name}: not {math.prod(shape)} strings")
        return texts
    kind = np.dtype(_kind(name, datatype)).newbyteorder("<")
    if len(data) != math.prod(shape) * kind.itemsize:
        raise RequestError(400, f"{name}: {len(data)} bytes are not {datatype} {list(shape)}")
    array = np.frombuffer(data, np.uint8 if kind.kind == "b" else kind)
    if kind.kind == "b":
        if array.size and array.max() > 1:
            raise RequestError(400, f"{name}: bytes that are not booleans")
        array = array.astype(np.bool_)
    return _shaped(name, array, shape)


def _kind(name: str, datatype: str) -> Any:
    if datatype not in DATATYPES:
        raise RequestError(
            400, f"{name}: datatype {datatype!r:.20} is none of {', '.join(DATATYPES)}"
        )
    return DATATYPES[datatype]


def _shaped(name: str, array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    if array.size != math.prod(shape):
        raise RequestError(400, f"{name}: {array.size} numbers are not of shape {list(shape)}")
    return array.reshape(tuple(shape))


def _strings(name: str, data: memoryview) -> list[str]:
    """Return strings, each after its length in four bytes."""
    found, place = [], 0
    try:
        while place < len(data):
            (size,) = struct.unpack_from("<I", data, place)
            if place + 4 + size > len(data):
                raise ValueError("cut short")
            found.append(bytes(data[place + 4 : place + 4 + size]).decode("utf-8"))
            place += 4 + size
    except (ValueError, struct.error) as error:
        raise RequestError(400, f"{name}: not strings after their lengths: {error}") from error
    return found


def to_json(array: np.ndarray) -> list[Any]:
    """Return the numbers of a tensor, flat; JSON has no infinity, so the largest stand for them."""
    if array.dtype.kind == "f":
        low, high = np.finfo(array.dtype).min, np.finfo(array.dtype).max
        array = np.nan_to_num(array, nan=np.nan, neginf=low, posinf=high)
        if np.isnan(array).any():
            raise RequestError(400, "the model returns NaN, which JSON has not", ["binary_data"])
    return list(array.reshape(-1).tolist())


def strings_to_bytes(texts: Sequence[str]) -> bytes:
    """Return strings as bytes, each after its length."""
    return b"".join(struct.pack("<I", len(one)) + one for one in (t.encode() for t in texts))
