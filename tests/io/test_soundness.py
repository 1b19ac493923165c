"""Programs whose numbers, mapping or demands are not sound are refused before they are used."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import graphprog as gp
from graphprog.errors import FileError
from graphprog.io import artifact
from graphprog.io.limits import Limits
from tests.support import version_1 as kept

Change = Callable[[dict[str, torch.Tensor], dict[str, Any]], Any]


def changed(name: str, folder: Path, change: Change) -> Path:
    """Write a kept file with other tensors or another document, and its checksum."""
    tensors, document = artifact.read(kept.path_of(name))
    change(tensors, document)
    text = json.dumps(document)
    metadata = {"graphprog": text, "checksum": artifact.checksum(text, tensors)}
    (folder / "changed.safetensors").write_bytes(safetensors.torch.save(tensors, metadata))
    return folder / "changed.safetensors"


def refusal(name: str, folder: Path, change: Change, **options: Any) -> str:
    path = changed(name, folder, change)
    graph = kept.graph_of(kept.PROGRAMS[name][0])
    modules = kept.MODULES[name]() if name in kept.MODULES else None
    with pytest.raises(FileError) as caught:
        gp.load(path, graph, modules, **options)
    assert str(path) in str(caught.value)
    return caught.value.what


def test_every_flipped_bit_of_a_tensor_is_noticed(tmp_path: Path) -> None:
    data = kept.path_of("image").read_bytes()
    start = 8 + struct.unpack_from("<Q", data)[0]
    path = tmp_path / "flipped.safetensors"
    for place in range(start, len(data), max(1, (len(data) - start) // 77)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(FileError, match="damaged: its tensors or its document are not those"):
            artifact.read(path)


def test_a_file_without_a_checksum_is_refused(tmp_path: Path) -> None:
    tensors, document = artifact.read(kept.path_of("image"))
    path = tmp_path / "bare.safetensors"
    path.write_bytes(safetensors.torch.save(tensors, {"graphprog": json.dumps(document)}))
    with pytest.raises(FileError, match="it has no checksum, which every program file has"):
        artifact.read(path)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused_by_name(number: float, tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor], document: dict[str, Any]) -> None:
        next(value for value in tensors.values() if value.ndim > 1)[0, 0] = number

    assert "numbers that are NaN or infinite, the first at [0, 0" in refusal(
        "prefix", tmp_path, change
    )


def test_a_task_that_diverged_is_not_saved(tmp_path: Path) -> None:
    task = kept.load("prefix")
    with torch.no_grad():
        next(task.program.parameters()).fill_(float("nan"))
    with pytest.raises(FileError, match=r"tensor 'program\.\S+' has \d+ numbers that are NaN"):
        gp.save(task, tmp_path / "diverged.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_session_takes_no_program_that_is_not_finite(tmp_path: Path) -> None:
    task = kept.load("vocabulary-map")
    gp.backends.onnx.export(task, tmp_path / "task.onnx", program="overridable")
    session = gp.backends.onnxruntime.Session(tmp_path / "task.onnx")
    state = dict(task.program_state())
    session.add("good", state)
    name = next(iter(session.overridable))
    state[name] = state[name] / 0
    with pytest.raises(FileError, match=f"tensor '{name}' has"):
        session.add("bad", state)


MAPPINGS: dict[str, tuple[str, Change, str]] = {
    "beyond": (
        "image-grid",
        lambda t, d: t["program.align.sources"].__setitem__((1, 0), 999),
        "frequency-map reads source class 999, which does not exist",
    ),
    "below": (
        "parametric",
        lambda t, d: t["program.align.sources"].__setitem__((1, 0), -1),
        "iterative-map reads source class -1, which does not exist",
    ),
    "shared": (
        "image-grid",
        lambda t, d: t["program.align.sources"].fill_(2),
        "frequency-map reads a source class for two target classes",
    ),
    "not the program's": (
        "image-masks",
        lambda t, d: t["program.align.sources"].__setitem__((1, 0), 3),
        "fixed-map reads source class 3 for target class 1, and the program 7",
    ),
    "not the draw": (
        "image-modules",
        lambda t, d: t["program.align.sources"].copy_(t["program.align.sources"].flip(0)),
        "random-map reads source class",
    ),
    "weights": (
        "image",
        lambda t, d: t["program.align.weights"].mul_(2),
        "bayesian-map has weights that are negative, or that sum to",
    ),
}


@pytest.mark.parametrize("name", MAPPINGS)
def test_a_mapping_is_one_that_its_program_makes(name: str, tmp_path: Path) -> None:
    file, change, said = MAPPINGS[name]
    assert said in refusal(file, tmp_path, change)


def part(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["program"]["manipulations"][0]
    return found


DEMANDS: dict[str, tuple[str, Change, str]] = {
    "length": (
        "prefix",
        lambda t, d: part(d).update(length=20_000_000),
        "program.manipulations.length is 20000000, more than the",
    ),
    "classes": (
        "image-grid",
        lambda t, d: d["program"]["align"].update(classes=10**8),
        "program.align.classes is 100000000, more than the",
    ),
    "manipulations": (
        "prefix",
        lambda t, d: d["program"].update(manipulations=[part(d)] * 3_000),
        "the program has 3000 manipulations, more than the limit of 256",
    ),
    "name": (
        "prefix",
        lambda t, d: part(d).update(at="hidden" * 33_000),
        "the program has 198000 characters of program.manipulations.at, more than",
    ),
    "product": (
        "reparameterized",
        lambda t, d: d["program"]["manipulations"][1]["value"].update(hidden=60_000),
        "asks for a tensor of 14400000000 numbers, more than the file stores",
    ),
    "sum": (
        "inserted",
        lambda t, d: part(d).update(length=2**20, value={"kind": "learnable"}, at="tokens"),
        "",
    ),
}


@pytest.mark.parametrize("name", DEMANDS)
def test_a_file_of_kilobytes_cannot_ask_for_gigabytes(name: str, tmp_path: Path) -> None:
    file, change, said = DEMANDS[name]
    assert said in refusal(file, tmp_path, change)


def test_limits_are_options(tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor], document: dict[str, Any]) -> None:
        part(document).update(length=2_000)

    assert "is 2000, more than" in refusal("prefix", tmp_path, change, limits=Limits(numbers=1_000))
    said = refusal("prefix", tmp_path, change, limits=Limits(memory=1_000))
    assert "asks for a tensor of" in said

    def one_more(tensors: dict[str, torch.Tensor], document: dict[str, Any]) -> None:
        part(document).update(length=part(document)["length"] + 1)

    assert "program state" in refusal("prefix", tmp_path, one_more)  # of another shape, as ever
