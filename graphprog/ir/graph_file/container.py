"""One safetensors file of named tensors and a JSON document, written tensor by tensor."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import torch

from graphprog.errors import FileError
from graphprog.utils.files import atomic_write
from graphprog.utils.json import parse_json, render_json

KEY = "graphprog-graph"
"""Name of the document in the metadata of the file."""

_MAX_DOCUMENT = 2**26
_WIDTHS = {"float": (64, 32, 16), "int": (64, 32, 16, 8), "uint": (64, 32, 16, 8)}
_DTYPES = {
    torch.bfloat16: "BF16",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    **{
        getattr(torch, f"{kind}{bits}"): f"{kind[0].upper()}{bits}"
        for kind, widths in _WIDTHS.items()
        for bits in widths
    },
}


def write_container(
    path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]
) -> Path:
    """Write the file atomically, with at most one copy of a tensor in memory.

    Args:
        path: path of the file; its folder must exist.
        tensors: dense tensors on any device; each is stored contiguously.
        document: JSON values.

    Raises:
        FileError: a tensor or the document cannot be stored, or the file cannot be written.
    """
    text = render_json(document, "document")
    if len(text) > _MAX_DOCUMENT:
        raise FileError(f"the graph takes {len(text)} bytes to describe, more than is ever read")
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES or tensor.layout != torch.strided or tensor.is_meta:
            raise FileError(
                f"weight {name!r}: {tensor.dtype}, {tensor.layout}, on {tensor.device}: "
                "only dense tensors of plain numbers, with their values, can be stored"
            )
    # the widest dtypes first, so that every tensor is aligned to its own width
    ordered = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(_header(tensors, ordered, text))
            for name in ordered:
                _write_tensor(file, tensors[name])

    return atomic_write(path, write)


def _header(tensors: Mapping[str, torch.Tensor], ordered: list[str], text: str) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {KEY: text}}
    start = 0
    for name in ordered:
        tensor = tensors[name]
        end = start + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    data = json.dumps(entries, separators=(",", ":")).encode()
    data += b" " * (-len(data) % 8)
    return len(data).to_bytes(8, "little") + data


def _write_tensor(file: BinaryIO, tensor: torch.Tensor) -> None:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    file.write(flat.view(torch.uint8).numpy().data)


class Container:
    """An open file of tensors and a document.

    Attributes:
        document: its JSON document.
    """

    def __init__(self, file: Any, document: dict[str, Any]) -> None:
        self.document = document
        self._file = file
        self._names = set(file.keys())

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def tensor(self, name: str) -> torch.Tensor:
        """Read one tensor."""
        found: torch.Tensor = self._file.get_tensor(name)
        return found


@contextlib.contextmanager
def open_container(path: str | os.PathLike[str], device: torch.device) -> Iterator[Container]:
    """Open a file that :func:`write_container` wrote.

    Raises:
        FileError: there is no such file, or it is damaged or something else.
    """
    if not os.path.isfile(path):
        raise FileError("no such file")
    with contextlib.ExitStack() as stack:
        try:
            file: Any = stack.enter_context(
                safetensors.safe_open(os.fspath(path), "pt", device=str(device))
            )
            metadata = file.metadata() or {}
        except Exception as error:
            raise FileError(
                f"not a graph file, or damaged: {error}",
                ["graph.save(path) again, or get the file again"],
            ) from error
        if KEY not in metadata:
            raise FileError(
                "not a graph file",
                ["gp.load(path, graph), for a program", "gp.capture(path), for a .pt2 file"],
            )
        if len(metadata[KEY]) > _MAX_DOCUMENT:
            raise FileError("its description is longer than that of any graph")
        document = parse_json(metadata[KEY], "document")
        if not isinstance(document, dict):
            raise FileError("its description is not a JSON object")
        yield Container(file, document)
