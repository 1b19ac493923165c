"""Exported files in Node and in a browser give what they give here, with any program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import graphprog as gp
from graphprog.backends.onnx.quantize import Precision, quantize
from graphprog.backends.onnxruntime import Session
from tests.models.deployed_tasks import image_graph, image_task, text_batch, text_graph, text_task
from tests.support.javascript_runtimes import Runtime, needs_node, run_model

pytestmark = [needs_node, pytest.mark.xdist_group("javascript")]
runtimes = pytest.mark.parametrize("runtime", ["node", "web"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image task exported in every mode, and two saved programs of it."""
    folder = tmp_path_factory.mktemp("javascript")
    graph = image_graph()
    for number in range(2):
        task = image_task(graph, seed=number)
        gp.save(task, folder / f"{number}.safetensors")
        np.save(folder / f"{number}.npy", task(_images()).detach().numpy())
    task = image_task(graph, seed=0)
    for mode in ("folded", "overridable", "inputs"):
        gp.backends.onnx.export(task, folder / f"{mode}.onnx", program=mode)
    return folder


def _images() -> torch.Tensor:
    return torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@runtimes
@pytest.mark.parametrize("mode", ["folded", "overridable"])
def test_a_file_runs_with_its_own_program(runtime: Runtime, mode: str, folder: Path) -> None:
    (found,) = run_model(runtime, folder / f"{mode}.onnx", {"images": _images()})
    assert list(found) == ["logits"]
    assert np.allclose(found["logits"], np.load(folder / "0.npy"), atol=1e-5)


@runtimes
@pytest.mark.parametrize("source", ["int8", "float16", "bfloat16"])
def test_a_source_in_fewer_bits_runs_too(
    runtime: Runtime, source: Precision, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "small.onnx"
    quantize(folder / "folded.onnx", path, source, providers="cpu")
    expected = Session(path, "cpu").run(_images())
    (found,) = run_model(runtime, path, {"images": _images()})
    assert np.abs(found["logits"] - expected).max() < 0.01 * np.abs(expected).max()
    assert np.abs(found["logits"] - np.load(folder / "0.npy")).max() < 0.05 * np.abs(expected).max()


@runtimes
def test_one_session_switches_programs(runtime: Runtime, folder: Path) -> None:
    programs = [folder / "0.safetensors", folder / "1.safetensors", folder / "0.safetensors"]
    found = run_model(runtime, folder / "inputs.onnx", {"images": _images()}, programs)
    first, second = (np.load(folder / f"{number}.npy") for number in range(2))
    assert not np.allclose(first, second, atol=1e-2)
    for outputs, expected in zip(found, (first, second, first), strict=True):
        assert np.allclose(outputs["logits"], expected, atol=1e-5)
    assert np.array_equal(found[0]["logits"], found[2]["logits"])


@runtimes
def test_without_a_program_it_says_what_is_missing(runtime: Runtime, folder: Path) -> None:
    (error,) = run_model(runtime, folder / "inputs.onnx", {"images": _images()})
    assert "program.additive.value' is missing in 'feeds'" in error


def test_why_there_are_files_whose_program_is_an_input(folder: Path) -> None:
    given = (folder / "overridable.onnx", {"images": _images()}, [folder / "1.safetensors"])
    names = ["program.additive.value", "program.additive_1.value", "program.align.weights"]
    (refused,) = run_model("web", *given, names)
    assert refused == "invalid input 'program.additive.value'"
    (ignored,) = run_model("node", *given, names)
    assert np.allclose(ignored["logits"], np.load(folder / "0.npy"), atol=1e-5)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[gp.ReprogrammedModel, Path]:
    task = text_task(text_graph())
    path = tmp_path_factory.mktemp("text") / "text.onnx"
    gp.backends.onnx.export(task, path)
    return task, path


@runtimes
def test_texts_of_any_length(runtime: Runtime, text: tuple[gp.ReprogrammedModel, Path]) -> None:
    task, path = text
    for rows, length in ((1, 4), (3, 11)):
        ids, present = text_batch(rows, length)
        (found,) = run_model(runtime, path, {"ids": ids, "present": present})
        assert np.allclose(found["logits"], task(ids, present).detach(), atol=1e-5)
