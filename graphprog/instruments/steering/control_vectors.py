"""Files of control vectors, GGUF as llama.cpp reads and writes them.

A tensor ``direction.N`` (float32, [d]) is added to the output of block N, counted from 0; llama.cpp
steers every block but the first. The metadata are ``general.architecture``, which is
``controlvector``, ``controlvector.model_hint``, the architecture that they were made for, and
``controlvector.layer_count``.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping
from typing import Any

import torch

from graphprog.errors import FileError, ProgramError
from graphprog.utils.files import atomic_write, read_regular

_MOST = 2**30
_NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_INT32, _TEXT, _ARRAY, _FLOAT32 = 5, 8, 9, 0
_ALIGNMENT = 32
_NAME = re.compile(r"direction\.([1-9]\d{0,5})")


def write_control_vectors(
    path: str | os.PathLike[str], vectors: Mapping[str, torch.Tensor], model_hint: str
) -> None:
    """Write vectors [d] by interface as a file for llama.cpp's ``--control-vector``.

    Args:
        path: the file, written atomically.
        vectors: by ``hidden[1]`` and later blocks, such as :meth:`Contrast.vectors` gives.
        model_hint: the architecture in GGUF's words, such as ``"llama"``.

    Raises:
        FileError: the file cannot be written.
        ProgramError: a vector is at another interface, or they differ in length.

    Example:
        >>> vectors = {"hidden[1]": torch.ones(8)}
        >>> gp.instruments.write_control_vectors("up.gguf", vectors, "llama")
        >>> assert [*gp.instruments.read_control_vectors("up.gguf")] == ["hidden[1]"]
    """
    blocks = {_block(name): vector.detach().cpu().float() for name, vector in vectors.items()}
    shapes = {tuple(vector.shape) for vector in blocks.values()}
    finite = all(bool(vector.isfinite().all()) for vector in blocks.values())
    if len(shapes) != 1 or len(next(iter(shapes))) != 1 or not finite:
        raise ProgramError(
            f"control vectors must be finite, of one shape [d], not {sorted(shapes)}"
        )
    size = -(-4 * next(iter(shapes))[0] // _ALIGNMENT) * _ALIGNMENT
    metadata = [
        _text("general.architecture") + struct.pack("<I", _TEXT) + _text("controlvector"),
        _text("controlvector.model_hint") + struct.pack("<I", _TEXT) + _text(model_hint),
        _text("controlvector.layer_count") + struct.pack("<Ii", _INT32, max(blocks)),
    ]
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(blocks), len(metadata)) + b"".join(metadata)
    data = b""
    for number, vector in sorted(blocks.items()):
        shape = struct.pack("<IQI", 1, len(vector), _FLOAT32)
        header += _text(f"direction.{number}") + shape + struct.pack("<Q", len(data))
        data += vector.numpy().astype("<f4").tobytes().ljust(size, b"\0")
    header = header.ljust(-(-len(header) // _ALIGNMENT) * _ALIGNMENT, b"\0")
    atomic_write(path, lambda temporary: temporary.write_bytes(header + data))


def read_control_vectors(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read a GGUF file of control vectors: vectors [d] by ``hidden[N]``.

    Nothing in the file is executed, and no more is read than the file has.

    Raises:
        FileError: there is no such file, it is damaged, or holds something else.

    Example:
        >>> gp.instruments.write_control_vectors("up.gguf", {"hidden[1]": torch.ones(8)}, "llama")
        >>> found = gp.instruments.read_control_vectors("up.gguf")
        >>> found["hidden[1]"].shape
        torch.Size([8])
    """
    try:
        return _Reader(read_regular(path, _MOST)).vectors()
    except FileError as error:
        raise FileError(f"{os.fspath(path)}: {error}") from error
    except (struct.error, UnicodeDecodeError) as error:
        raise FileError(
            f"{os.fspath(path)}: damaged: it ends too early, or a text is not UTF-8",
            ["write or download the file again"],
        ) from error


def _block(name: str) -> int:
    found = re.fullmatch(r"hidden\[([1-9]\d*)\]", name)
    if found is None:
        raise ProgramError(
            f"there is no control vector for {name!r}: llama.cpp steers the blocks after the first",
            ['name them: contrast.vectors([f"hidden[{i}]" for i in range(1, blocks)])'],
        )
    return int(found.group(1))


def _text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


class _Reader:
    """Reads the bytes of a file in order; what lies beyond their end raises ``struct.error``."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def vectors(self) -> dict[str, torch.Tensor]:
        magic, version, tensors, entries = self._numbers("4sIQQ")
        if magic != b"GGUF" or version not in (2, 3):
            raise FileError("not a GGUF file of version 2 or 3", ["give a control vector file"])
        metadata = {}
        for _ in range(entries):
            key = self._text()
            metadata[key] = self._value(self._numbers("I")[0])
        if metadata.get("general.architecture") != "controlvector":
            raise FileError(
                f"it holds a {str(metadata.get('general.architecture'))[:60]!r}, "
                "not control vectors",
                ["give a file whose general.architecture is controlvector"],
            )
        places = [self._place() for _ in range(tensors)]
        step = metadata.get("general.alignment", _ALIGNMENT)
        if type(step) is not int or not 0 < step <= 2**16:
            raise FileError(f"general.alignment is {step!r:.60}")
        start = -(-self.at // step) * step
        found: dict[int, torch.Tensor] = {}
        for number, length, offset in places:
            self.at = start + offset
            value = torch.frombuffer(bytearray(self._bytes(4 * length)), dtype=torch.float32)
            if number in found or not bool(value.isfinite().all()):
                raise FileError(f"direction.{number} is there twice, or not finite")
            found[number] = value
        if len({len(value) for value in found.values()}) != 1:
            raise FileError("it has no directions, or directions of several lengths")
        return {f"hidden[{number}]": found[number] for number in sorted(found)}

    def _place(self) -> tuple[int, int, int]:
        """Return block, length and offset of a tensor."""
        name = self._text()
        shown = f"the tensor {name[:60]!r}"
        named = _NAME.fullmatch(name)
        if named is None:
            raise FileError(f"{shown} is not a direction.N with N of 1 or more")
        axes = self._numbers("I")[0]
        if axes != 1:
            raise FileError(f"{shown} has {axes} axes; a vector has one")
        length, kind, offset = self._numbers("QIQ")
        if kind != _FLOAT32 or not length:
            raise FileError(f"{shown} is empty or not float32")
        return int(named.group(1)), length, offset

    def _value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self._text()
        if kind == _ARRAY:
            inner, count = self._numbers("IQ")
            if inner == _TEXT:
                for _ in range(count):
                    self._text()
            else:
                self._bytes(struct.calcsize("<" + self._code(inner)) * count)
            return None
        return self._numbers(self._code(kind))[0]

    def _code(self, kind: int) -> str:
        if kind not in _NUMBERS:
            raise FileError(f"its metadata have a value of the unknown type {kind}")
        return _NUMBERS[kind]

    def _text(self) -> str:
        return self._bytes(self._numbers("Q")[0]).decode()

    def _numbers(self, codes: str) -> tuple[Any, ...]:
        return struct.unpack("<" + codes, self._bytes(struct.calcsize("<" + codes)))

    def _bytes(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise struct.error("beyond the end")
        self.at += count
        return self.data[self.at - count : self.at]
