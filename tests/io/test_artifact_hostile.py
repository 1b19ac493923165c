from __future__ import annotations

import json
import os
import re
import stat
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

from graphprog.errors import FileError
from graphprog.io import artifact
from tests.support.program_files import FORMAT, VALID, pack, pack_document, some_tensors


def refusal(path: Path, data: bytes) -> str:
    """What is said of a file of these bytes, which must be refused."""
    path.write_bytes(data)
    with pytest.raises(FileError) as caught:
        artifact.read(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ('{"format":{"name":"graphprog","version":2}}', "format version 2.*\n.*update graphprog"),
        ('{"format":{"name":"graphprog","version":0}}', "format version 0"),
        ('{"format":{"name":"graphprog","version":-1}}', "format version -1"),
        ('{"format":{"name":"graphprog","version":1.0}}', "format version 1.0"),
        ('{"format":{"name":"graphprog","version":"1"}}', "format version '1'"),
        ('{"format":{"name":"graphprog","version":true}}', "format version True"),
        ('{"format":{"name":"graphprog","version":1e999}}', "format.version: JSON has no inf"),
        ('{"format":{"name":"graphprog"}}', "format version None"),
        ('{"format":{"name":"other","version":1}}', "not a graphprog program"),
        ('{"format":1}', "not a graphprog program"),
        ("{}", "not a graphprog program"),
        ("[]", "a list, expected an object"),
        ("", "not valid JSON"),
        ('{"a":NaN}', "NaN is not JSON"),
        ('{"a":-Infinity}', "-Infinity is not JSON"),
        ('{"a":1,"a":2}', "'a' appears twice"),
        ('{"a":' + "9" * 5000 + "}", "not valid JSON"),
        ('{"a":"\\ud800"}', "document.a: .*not Unicode"),
        ('{"a":' + "[" * 70 + "]" * 70 + "}", "nested deeper"),
        ('{"a":' + "[" * 200_000, "nested deeper"),
        (" " * (artifact.MAX_DOCUMENT_BYTES + 1), "larger than 4 MiB"),
    ],
)
def test_hostile_documents(tmp_path: Path, document: str, said: str) -> None:
    message = refusal(tmp_path / "a.safetensors", pack_document(document))
    assert re.search(said, message), message


def entry(dtype: str, shape: Any, start: Any, stop: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    ("tensors", "body"),
    [
        ({"program.a": entry("F32", [2], 0, 4)}, bytes(4)),
        ({"program.a": entry("F32", [2], 0, 8)}, bytes(4)),
        ({"program.a": entry("F32", [1], 0, 4)}, bytes(5)),
        ({"program.a": entry("F32", [1], 4, 8)}, bytes(8)),
        ({"program.a": entry("F32", [1], 0, 4), "program.b": entry("I32", [1], 0, 4)}, bytes(4)),
        ({"program.a": entry("F32", [-1], 0, 4)}, bytes(4)),
        ({"program.a": entry("F32", [2**40, 2**40], 0, 4)}, bytes(4)),
        ({"program.a": entry("F32", [0, 2**63], 0, 0)}, b""),
        ({"program.a": entry("F32", [1] * 17, 0, 4)}, bytes(4)),
        ({"program.a": entry("F32", "ab", 0, 4)}, bytes(4)),
        ({"program.a": entry("F4", [2], 0, 1)}, bytes(1)),
        ({"program.a": entry("pickle", [1], 0, 4)}, bytes(4)),
        ({"program.a": entry("BOOL", [2], 0, 2)}, b"\x01\x02"),
        ({"program.a": {}}, b""),
        ({"program.a": 3}, b""),
        ({"weight": entry("F32", [1], 0, 4)}, bytes(4)),
    ],
)
def test_hostile_tensors(tmp_path: Path, tensors: dict[str, Any], body: bytes) -> None:
    data = pack_document(json.dumps({"format": FORMAT}), tensors, body)
    message = refusal(tmp_path / "a.safetensors", data)
    assert "damaged" in message or "program.a" in message or "'weight'" in message


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "only 0 bytes"),
        (bytes(8), "not a safetensors file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not a safetensors file"),
        (struct.pack("<Q", 2**63) + b"{}", "header of 9223372036854775808 bytes"),
        (struct.pack("<Q", 100) + b"{}", "cut short"),
        (pack(b"{\xff}"), "not UTF-8"),
        (pack(b'{"a":1,"a":1}'), "appears twice"),
        (pack({}), "safetensors file of something else"),
        (pack({"__metadata__": {"format": "pt"}}), "safetensors file of something else"),
        (pack({"__metadata__": [1]}), "safetensors file of something else"),
        (pack({"__metadata__": {"graphprog": {"a": 1}}}), "safetensors file of something else"),
        (VALID[:-1], "damaged"),
        (VALID + b"\0", "damaged"),
    ],
)
def test_files_of_other_kinds(tmp_path: Path, data: bytes, said: str) -> None:
    assert said in refusal(tmp_path / "a.safetensors", data)


def test_weights_of_a_model_are_not_a_program(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(FileError, match="not a graphprog program"):
        artifact.read(path)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "program.pt"
    torch.save({"program.a": torch.zeros(3)}, path)
    with pytest.raises(FileError, match="not a safetensors file"):
        artifact.read(path)


def test_a_huge_file_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.truncate(50 * artifact.MAX_FILE_BYTES)  # sparse: occupies nothing
    with pytest.raises(FileError, match="larger than"):
        artifact.read(path)


def test_places_that_are_no_files(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, said in {
        tmp_path: "Is a directory",
        tmp_path / "absent": "No such file",
        pipe: "not a regular file",
        Path("/dev/zero"): "not a regular file",
        Path("a\0b"): "null byte",
    }.items():
        with pytest.raises(FileError, match=said) as caught:
            artifact.read(path)
        assert str(path) in str(caught.value)
    for path in (tmp_path, tmp_path / "absent" / "a", pipe, Path("a\0b")):
        with pytest.raises(FileError, match="cannot be written"):
            artifact.write(path, some_tensors(), {})
    assert stat.S_ISFIFO(pipe.stat().st_mode)
