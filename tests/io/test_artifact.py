from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

from graphprog.errors import FileError, ProgramError
from graphprog.io import artifact
from graphprog.utils.json import MAX_DEPTH
from tests.support.program_files import DOCUMENT, FORMAT, pack_document, some_tensors


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "program.safetensors"
    artifact.write(path, some_tensors(), DOCUMENT)
    tensors, document = artifact.read(path)
    assert document == {**DOCUMENT, "format": FORMAT}
    assert tensors.keys() == some_tensors().keys()
    for name, tensor in some_tensors().items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor), name
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_other_readers_of_safetensors_understand_the_file(tmp_path: Path) -> None:
    path = tmp_path / "program.safetensors"
    artifact.write(path, some_tensors(), DOCUMENT)
    with safetensors.safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(some_tensors())
        assert json.loads(file.metadata()["graphprog"])["labels"] == DOCUMENT["labels"]


def test_shared_strided_and_trainable_tensors_are_stored_apart(tmp_path: Path) -> None:
    path = tmp_path / "program.safetensors"
    base = torch.arange(12.0).reshape(3, 4)
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.5, 3e38]))
    tensors = {
        "program.all": base,
        "program.again": base,
        "program.turned": base.t(),
        "program.part": base[1:, ::2],
        "program.wide": torch.tensor([7.0]).expand(5),
        "program.conjugate": torch.tensor([1 + 2j]).conj(),
        "program.negative": torch.tensor([1 + 2j]).conj().imag,
        "program.weight": weight,
    }
    artifact.write(path, tensors, {})
    loaded, _ = artifact.read(path)
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor.detach()), name
        assert not loaded[name].requires_grad
    loaded["program.all"].zero_()
    assert torch.equal(loaded["program.again"], base)


def test_rewriting_a_document_that_was_read_keeps_it(tmp_path: Path) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    artifact.write(first, some_tensors(), DOCUMENT)
    artifact.write(second, *artifact.read(first))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("source.weight", torch.zeros(1), "only tensors under 'program.'"),
        ("program.", torch.zeros(1), "only tensors under 'program.'"),
        ("program.a", torch.zeros(2, 2).to_sparse(), "only dense tensors"),
        ("program.a", torch.zeros(2, device="meta"), "only dense tensors"),
        ("program.a", torch.zeros(2, dtype=torch.complex128), "complex128"),
        ("program.a", torch.zeros([1] * 17), "17 axes"),
        ("program.a", "text", "a str is not a tensor"),
    ],
)
def test_tensors_that_cannot_be_stored(tmp_path: Path, name: str, tensor: Any, said: str) -> None:
    with pytest.raises(FileError, match=said):
        artifact.write(tmp_path / "a.safetensors", {name: tensor}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"training": {"losses": [1.0, float("nan")]}}, r"document\.training\.losses\[1\].*nan"),
        ({"a": float("inf")}, r"document\.a: JSON has no inf"),
        ({"a": {1: 2}}, r"document\.a: the name 1 is not a string"),
        ({"a": [object()]}, r"document\.a\[0\]: a object"),
        ({"a": MappingProxyType({})}, r"document\.a: a mappingproxy"),
        ({"a": torch.zeros(1)}, r"document\.a: a Tensor"),
        ({"a": "\ud800"}, r"document\.a: .*not Unicode"),
        ({"a": "x" * (artifact.MAX_DOCUMENT_BYTES + 1)}, "larger than 4 MiB"),
    ],
)
def test_documents_that_cannot_be_stored(tmp_path: Path, document: Any, said: str) -> None:
    with pytest.raises(FileError, match=said):
        artifact.write(tmp_path / "a.safetensors", {}, document)
    assert not list(tmp_path.iterdir())


def test_what_nests_too_deep_cannot_be_stored(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(MAX_DEPTH):
        deep = [deep]
    with pytest.raises(FileError, match="deeper than 64"):
        artifact.write(tmp_path / "a.safetensors", {}, {"a": deep})


def test_unknown_entries_of_the_same_version_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(pack_document(json.dumps({"format": {**FORMAT, "by": "x"}, "later": [1]})))
    assert artifact.read(path)[1]["later"] == [1]


def test_what_the_content_lacks_is_said_of_the_file() -> None:
    with pytest.raises(FileError) as caught, artifact.within("a/b.safetensors"):
        raise ProgramError("unknown mask", ["look again"])
    assert caught.value.what == "a/b.safetensors: unknown mask"
    assert caught.value.remedies == ("look again",)
