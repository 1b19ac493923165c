"""Tasks over one source share its weights: none converts them, files hash what they are now."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.errors import FileError, ProgramError
from graphprog.io.artifact import read
from graphprog.ir.fingerprint import WeightHash
from tests.models.kept_source import PROGRAM, Source, trained

CONVERSIONS: dict[str, Callable[[nn.Module], object]] = {
    "float16": lambda task: task.half(),
    "float64": lambda task: task.double(),
    "bfloat16": lambda task: task.to("cpu", torch.bfloat16),
    "meta": lambda task: task.to("meta"),
    "emptied": lambda task: task.to_empty(device="cpu"),
}


def captured_anew() -> gp.Graph:
    """Capture a graph that a test may write to."""
    return gp.capture(Source(), (torch.zeros(2, 3, 10, 10),))


@pytest.fixture(scope="module")
def graph() -> gp.Graph:
    return captured_anew()


@pytest.mark.parametrize("kind", CONVERSIONS)
def test_a_task_is_not_converted_because_others_share_its_source(
    graph: gp.Graph, kind: str
) -> None:
    task, other = gp.compile(graph, PROGRAM), gp.compile(graph, PROGRAM)
    x = torch.rand(2, 1, 6, 6)
    before = other(x)
    for module in (task, task.graph.module, graph.weights):
        with pytest.raises(ProgramError, match=f"a compiled model cannot be .*{kind}"):
            CONVERSIONS[kind](module)
        assert task(x).equal(before)
        assert other(x).equal(before)
    assert task.float().to("cpu")(x).equal(before)


def test_the_remedy_for_a_conversion_works() -> None:
    model = copy.deepcopy(Source()).to(torch.bfloat16)
    half = gp.capture(model, (torch.zeros(2, 3, 10, 10, dtype=torch.bfloat16),))
    task = gp.compile(half, gp.Program(align=gp.LinearHead(2)))
    images, labels = torch.rand(4, 3, 10, 10).bfloat16(), torch.tensor([0, 1, 0, 1])
    history = gp.fit(task, (images, labels), epochs=1, batch_size=2)
    assert len(history.records) == 1


@torch.no_grad()
def test_files_are_of_the_weights_as_they_are_now(tmp_path: Path) -> None:
    graph = captured_anew()
    task = trained(graph)
    before = graph.fingerprint
    gp.save(task, tmp_path / "before.safetensors")
    task.source.get_parameter("head.weight")[3, 1] += 1e-3
    assert graph.fingerprint != before
    assert graph.fingerprint.text == before.text
    with pytest.raises(FileError, match="made for other weights"):
        gp.load(tmp_path / "before.safetensors", graph)
    gp.save(task, tmp_path / "after.safetensors")
    saved = read(tmp_path / "after.safetensors")[1]["source"]["weights"]
    assert saved == graph.fingerprint.weights == captured_copy(graph).fingerprint.weights
    gp.backends.onnx.export(task, tmp_path / "task.onnx")
    entries = {entry.key: entry.value for entry in onnx.load(tmp_path / "task.onnx").metadata_props}
    assert json.loads(entries["graphprog"])["source"]["weights"] == saved


def captured_copy(graph: gp.Graph) -> gp.Graph:
    """Capture a model with a copy of a graph's weights."""
    model = Source()
    model.load_state_dict({k: v.clone() for k, v in graph.weights.source.state_dict().items()})
    return gp.capture(model, (torch.zeros(2, 3, 10, 10),))


def plain_hash(module: nn.Module) -> str:
    """Hash every tensor anew."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def swapped(model: nn.Sequential) -> None:
    model[1].weight = nn.Parameter(torch.full((3, 3), 0.5))


def renamed(model: nn.Sequential) -> None:
    model.add_module("3", nn.Linear(1, 1))


WRITES: dict[str, Callable[[nn.Sequential], object]] = {
    "nothing": lambda model: None,
    "in place": lambda model: model[0].bias[1].add_(1),
    "past the version": lambda model: model[2].weight.data.mul_(2),
    "through NumPy": lambda model: model[1].bias.numpy().fill(7),
    "another tensor": swapped,
    "there and back": lambda model: model.half().float(),
    "another name": renamed,
    "a copy of the same": lambda model: model.load_state_dict(model.state_dict()),
}


@torch.no_grad()
def test_an_incremental_hash_is_the_whole_hash() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 5))
    model.requires_grad_(False)
    kept = WeightHash()
    for name, write in WRITES.items():
        write(model)
        assert kept(model) == plain_hash(model) == kept(model), name
    assert copy.deepcopy(kept)(model[0]) == plain_hash(model[0])


@torch.no_grad()
def test_an_incremental_hash_starts_at_the_first_change() -> None:
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4)))
    kept = WeightHash()
    kept(model)
    before = [digest for _, digest in kept._seen]
    model[3].weight.mul_(2)
    kept(model)
    same = [digest is old for (_, digest), old in zip(kept._seen, before, strict=True)]
    assert same == [True] * 7 + [False]
