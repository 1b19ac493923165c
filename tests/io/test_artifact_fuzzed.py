from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprog.errors import FileError
from graphprog.io import artifact
from tests.support.program_files import FORMAT, VALID, pack, pack_document, some_tensors


@pytest.fixture(scope="session")
def spare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file that property tests may overwrite."""
    return tmp_path_factory.mktemp("spare") / "program.safetensors"


def read_or_refuse(path: Path, data: bytes) -> None:
    """No bytes may make anything but a FileError, and what is accepted must be sound."""
    path.write_bytes(data)
    try:
        tensors, document = artifact.read(path)
    except FileError:
        return
    assert document["format"]["version"] == 1
    for name, tensor in tensors.items():
        assert name.startswith("program.")
        tensor.clone()


@given(data=st.binary(max_size=200))
def test_any_bytes(spare: Path, data: bytes) -> None:
    read_or_refuse(spare, data)


@given(
    flips=st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(1, 255)), max_size=4),
    stop=st.integers(0, len(VALID)),
    more=st.binary(max_size=8),
)
def test_mutated_files(spare: Path, flips: list[tuple[int, int]], stop: int, more: bytes) -> None:
    data = bytearray(VALID)
    for position, change in flips:
        data[position] ^= change
    read_or_refuse(spare, bytes(data))
    read_or_refuse(spare, bytes(data[:stop]) + more)


@given(length=st.integers(0, 2**64 - 1) | st.integers(0, 2 * len(VALID)))
def test_any_header_length(spare: Path, length: int) -> None:
    read_or_refuse(spare, struct.pack("<Q", length) + VALID[8:])


@given(position=st.integers(8, len(VALID) - 28), text=st.text(max_size=6), cut=st.integers(0, 6))
def test_mutated_headers_of_the_right_length(
    spare: Path, position: int, text: str, cut: int
) -> None:
    size = struct.unpack_from("<Q", VALID)[0]
    header = VALID[8:position] + text.encode(errors="replace") + VALID[position + cut : 8 + size]
    read_or_refuse(spare, pack(header, VALID[8 + size :]))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)


@given(value=JSON_VALUES, version=st.just(1) | JSON_VALUES)
def test_any_document(spare: Path, value: Any, version: Any) -> None:
    form = {"name": "graphprog", "version": version}
    for document in (value, {"format": form, "program": value}):
        read_or_refuse(spare, pack_document(json.dumps(document)))


ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F4", "F8_E8M0", "BOOL", "C64", "U64"]) | JSON_VALUES,
        "shape": st.lists(st.integers(-1, 3) | st.integers(), max_size=3) | JSON_VALUES,
        "data_offsets": st.lists(st.integers(0, 16), min_size=2, max_size=2) | JSON_VALUES,
    }
)


@given(one=ENTRIES | JSON_VALUES, other=ENTRIES | JSON_VALUES, body=st.binary(max_size=16))
def test_any_tensor_entries(spare: Path, one: Any, other: Any, body: bytes) -> None:
    entries = {"program.a": one, "program.b": other}
    read_or_refuse(spare, pack_document(json.dumps({"format": FORMAT}), entries, body))


@settings(max_examples=30)  # each waits for the disk
@given(document=st.dictionaries(st.text(max_size=8), JSON_VALUES, max_size=4))
def test_what_is_written_can_be_read(spare: Path, document: dict[str, Any]) -> None:
    try:
        artifact.write(spare, some_tensors(), document)
    except FileError:
        return
    assert artifact.read(spare)[1] == {**document, "format": FORMAT}
