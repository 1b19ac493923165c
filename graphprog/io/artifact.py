"""The file format of saved programs: a safetensors file with one JSON document as metadata.

Format version 1: the tensors are those of ``program.*``. The safetensors metadata has the key
``graphprog``, whose value is the text of a JSON object with at least
``"format": {"name": "graphprog", "version": 1}``, and the key ``checksum``: the SHA-256 of that
text and of every tensor. The version is raised only when an older reader
would misread a file; anything that a reader may safely ignore is added without raising it. So
unknown top-level entries of the document, and other metadata, are kept or ignored, never refused.

A file is read only as data: nothing in it is executed, unpickled or imported. It is refused if it
is larger, or its parts are more numerous or nested deeper, than any program needs.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import safetensors.torch
import torch

from graphprog.errors import FileError, ProgramError
from graphprog.utils.files import atomic_write, read_regular, require_path
from graphprog.utils.json import parse_json, render_json

FORMAT_NAME = "graphprog"
FORMAT_VERSION = 1
CHECKSUM = "checksum"
TENSOR_PREFIX = "program."
MAX_FILE_BYTES = 2**30
MAX_HEADER_BYTES = 8 * 2**20
MAX_DOCUMENT_BYTES = 4 * 2**20
MAX_AXES = 16
_DTYPES = frozenset(
    getattr(torch, name)
    for name in (
        *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
        *("bool", "complex64"),
    )
)
_NOT_OURS = "not a graphprog program"
_BROKEN = ["download the file again, or save the program again: this copy is damaged"]


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]
) -> None:
    """Write tensors and a document to one file, atomically (see :func:`atomic_write`).

    Args:
        path: the file; its folder must exist.
        tensors: dense tensors of any shape, device and strides; stored detached, contiguous and
            separately even if they share memory. Names start with ``program.``. NaN and
            infinities are refused: no program that has them is of use.
        document: JSON values; ``format`` is added or replaced.

    Raises:
        FileError: a tensor or the document cannot be stored, or the file cannot be written.
    """
    with within(path):
        data = encoded(tensors, document)
    atomic_write(path, lambda temporary: temporary.write_bytes(data))


def encoded(tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]) -> bytes:
    """Return the bytes that :func:`write` writes.

    Raises:
        FileError: a tensor or the document cannot be stored.
    """
    form = {"name": FORMAT_NAME, "version": FORMAT_VERSION}
    text = render_json({**document, "format": form}, "document")
    dense = {name: _dense(name, tensor) for name, tensor in tensors.items()}
    metadata = {FORMAT_NAME: text, CHECKSUM: checksum(text, dense)}
    data = _in_order(safetensors.torch.save(dense, metadata=metadata))
    decoded(data)  # what cannot be read back is never written
    return data


def _in_order(data: bytes) -> bytes:
    """Sort the metadata of a file; safetensors would write them in a different order each time."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def read(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read and validate a file that :func:`write` wrote.

    Returns:
        The tensors, on the CPU, each with its own memory; and the document, whose ``format`` is
        checked and whose other entries are any JSON values.

    Raises:
        FileError: the file is missing, not a program, damaged, truncated, oversized, hostile, or
            of an unknown version. No content raises any other error.
    """
    with within(path):
        return decoded(read_regular(path, MAX_FILE_BYTES))


@contextmanager
def within(path: str | os.PathLike[str]) -> Iterator[None]:
    """Prepend the path of a file to errors about its content.

    Raises:
        FileError: for every :class:`FileError` or :class:`ProgramError` in the block; or it is not
            a path.
    """
    require_path(path)
    try:
        yield
    except (FileError, ProgramError) as error:
        raise FileError(f"{os.fspath(path)}: {error.what}", error.remedies) from error


def _dense(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if not isinstance(tensor, torch.Tensor):
        raise FileError(f"tensor {name!r}: a {type(tensor).__name__} is not a tensor")
    if tensor.dtype not in _DTYPES or tensor.layout != torch.strided or tensor.is_meta:
        raise FileError(
            f"tensor {name!r}: {tensor.dtype}, {tensor.layout}, on {tensor.device}:"
            " only dense tensors of plain numbers, with their values, can be stored",
            ["convert it, for example with .to_dense() or .float()"],
        )
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def decoded(data: bytes) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Parse and validate bytes as :func:`read` does.

    Raises:
        FileError: as :func:`read`.
    """
    header = _header(data)
    document = _document(header)
    for name, entry in header.items():
        if name != "__metadata__":
            _check_entry(name, entry)
    try:
        tensors = safetensors.torch.load(data)
    except Exception as fault:  # errors of safetensors, and of torch for an impossible tensor
        raise FileError(f"damaged: {_first_line(fault):.300}", _BROKEN) from fault
    _check_checksum(header["__metadata__"], tensors)
    for name, tensor in tensors.items():
        # In a boolean tensor, a byte other than 0 and 1 has no defined meaning.
        if tensor.dtype == torch.bool and bool((tensor.view(torch.uint8) > 1).any()):
            raise FileError(f"damaged: tensor {name!r:.80} has bytes that are not booleans")
        require_finite(name, tensor)
    return tensors, document


def checksum(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of a document and of name, dtype, shape and bytes of every tensor."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_checksum(metadata: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    stored = metadata.get(CHECKSUM)
    if not isinstance(stored, str):
        raise FileError(
            "it has no checksum, which every program file has: it was changed, or written by "
            "something other than gp.save",
            ["save the program again: gp.save(task, path)"],
        )
    if stored != checksum(metadata[FORMAT_NAME], tensors):
        raise FileError(
            "damaged: its tensors or its document are not those that were saved", _BROKEN
        )


def require_finite(name: str, tensor: torch.Tensor) -> None:
    """Check that the numbers of a tensor are finite: labels of others would mean nothing.

    Raises:
        FileError: it has NaN or an infinity; says how many, and where the first one is.
    """
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return
    wide = tensor if tensor.element_size() > 1 else tensor.float()
    wrong = ~wide.isfinite()
    if bool(wrong.any()):
        first = wrong.nonzero()[0].tolist()
        raise FileError(
            f"tensor {name!r:.80} has {int(wrong.sum())} numbers that are NaN or infinite, the "
            f"first at {first}",
            ["train the program again, with a smaller lr", "get the file again"],
        )


def _header(data: bytes) -> dict[str, Any]:
    """Return the JSON object before the tensors; safetensors itself checks the entries."""
    if len(data) < 8:
        raise FileError(f"{_NOT_OURS}: only {len(data)} bytes long", _BROKEN)
    (length,) = struct.unpack_from("<Q", data)
    if data[8:9] != b"{":
        raise FileError(f"{_NOT_OURS}: not a safetensors file")
    if length > MAX_HEADER_BYTES:
        raise FileError(f"header of {length} bytes, more than {MAX_HEADER_BYTES} allowed", _BROKEN)
    if 8 + length > len(data):
        raise FileError(f"cut short: header of {length} bytes in {len(data)}", _BROKEN)
    try:
        text = data[8 : 8 + length].decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(f"damaged: header is not UTF-8: {error.reason}", _BROKEN) from error
    header: dict[str, Any] = parse_json(text, "header")
    return header


def _document(header: Mapping[str, Any]) -> dict[str, Any]:
    metadata = header.get("__metadata__")
    text = metadata.get(FORMAT_NAME) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise FileError(
            f"{_NOT_OURS}: a safetensors file of something else",
            [
                "pass a file written by gp.save(task, path)",
                "load the weights of a model into the model itself",
            ],
        )
    if len(text.encode()) > MAX_DOCUMENT_BYTES:
        raise FileError(f"document larger than {MAX_DOCUMENT_BYTES >> 20} MiB")
    document = parse_json(text, "document")
    if not isinstance(document, dict):
        raise FileError(f"document: a {type(document).__name__}, expected an object", _BROKEN)
    foreign = FileError(f"{_NOT_OURS}: its document does not name the format", _BROKEN)
    check_format(document.get("format"), FORMAT_NAME, FORMAT_VERSION, foreign)
    return document


def check_format(form: Any, name: str, newest: int, foreign: FileError) -> None:
    """Check the ``format`` of a document.

    Args:
        form: the entry of the document; any value.
        name: name of the format.
        newest: the latest version that this package reads.
        foreign: the error to raise for another kind of document.

    Raises:
        FileError: ``foreign``, or the version is missing or later.
    """
    if not isinstance(form, dict) or form.get("name") != name:
        raise foreign
    version = form.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise FileError(f"format version {version!r:.40}: expected an integer from 1", _BROKEN)
    if version > newest:
        raise FileError(
            f"format version {version}; this graphprog reads up to {newest}",
            ["update graphprog: pip install --upgrade graphprog"],
        )


def _check_entry(name: str, entry: Any) -> None:
    if not name.startswith(TENSOR_PREFIX) or name == TENSOR_PREFIX:
        raise FileError(
            f"tensor {name!r:.80}: only tensors under {TENSOR_PREFIX!r} belong in a program"
        )
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if isinstance(shape, list) and len(shape) > MAX_AXES:
        raise FileError(f"tensor {name!r:.80}: {len(shape)} axes, more than {MAX_AXES} allowed")


def _first_line(fault: Exception) -> str:
    return (str(fault).splitlines() or [type(fault).__name__])[0]
