"""Control vectors in GGUF files, against the package of llama.cpp."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
import torch

import graphprog as gp
from graphprog.errors import FileError, ProgramError

gguf = pytest.importorskip("gguf")

VECTORS = {f"hidden[{i}]": torch.randn(9) for i in (1, 2, 5)}


def by_llama_cpp(path: Path, arch: str = "controlvector", zero: bool = False) -> Path:
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_uint32("controlvector.layer_count", 5)
    writer.add_array("notes", ["a", "b"])
    writer.add_array("numbers", [1, 2, 3])
    for name, vector in VECTORS.items():
        number = 0 if zero else int(name[7:-1])
        writer.add_tensor(f"direction.{number}", vector.numpy())
        if zero:
            break
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_llama_cpp_reads_what_is_written(tmp_path: Path) -> None:
    gp.instruments.write_control_vectors(tmp_path / "a.gguf", VECTORS, "llama")
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    found = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in reader.tensors}
    assert {name: one.shape for name, one in found.items()} == {
        f"direction.{i}": (9,) for i in (1, 2, 5)
    }
    for name, vector in VECTORS.items():
        assert torch.equal(found[f"direction.{name[7:-1]}"], vector)
    assert reader.fields["general.architecture"].contents() == "controlvector"
    assert reader.fields["controlvector.model_hint"].contents() == "llama"
    assert reader.fields["controlvector.layer_count"].contents() == 5


def test_what_llama_cpp_wrote_is_read(tmp_path: Path) -> None:
    found = gp.instruments.read_control_vectors(by_llama_cpp(tmp_path / "a.gguf"))
    assert [*found] == [*VECTORS]
    assert all(torch.equal(found[name], vector) for name, vector in VECTORS.items())


def test_other_and_damaged_files_are_refused(tmp_path: Path) -> None:
    read = gp.instruments.read_control_vectors
    with pytest.raises(FileError, match=r"general\.architecture is controlvector"):
        read(by_llama_cpp(tmp_path / "a.gguf", arch="llama"))
    with pytest.raises(FileError, match=r"direction\.0"):
        read(by_llama_cpp(tmp_path / "a.gguf", zero=True))
    whole = by_llama_cpp(tmp_path / "a.gguf").read_bytes()
    changed = tmp_path / "b.gguf"
    for length in range(0, len(whole) - 32, 7):
        changed.write_bytes(whole[:length])
        with pytest.raises(FileError, match=r"b\.gguf"):
            read(changed)
    draw = random.Random(0)
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.choice((0, 1, 8, 9, 127, 255))
        changed.write_bytes(data)
        with contextlib.suppress(FileError):
            read(changed)
    with pytest.raises(FileError):
        read(tmp_path / "none.gguf")
    with pytest.raises(ProgramError, match="after the first"):
        gp.instruments.write_control_vectors(changed, {"hidden[0]": torch.ones(3)}, "llama")
    with pytest.raises(ProgramError, match="one shape"):
        gp.instruments.write_control_vectors(
            changed, {"hidden[1]": torch.ones(3), "hidden[2]": torch.ones(4)}, "llama"
        )
