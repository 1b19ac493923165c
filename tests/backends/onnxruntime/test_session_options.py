"""How sessions run: options, many rows, and tensors that stay where they are computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import graphprog as gp
from graphprog.backends.onnxruntime import Session
from graphprog.backends.onnxruntime.batches import run_in_batches
from graphprog.backends.onnxruntime.io_binding import IOBinding
from graphprog.backends.onnxruntime.session_options import SessionOptions
from graphprog.errors import BackendError, DataError
from tests.models.deployed_tasks import image_graph, image_task, text_batch, text_graph, text_task

pytestmark = pytest.mark.xdist_group("deployed-onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sessions")
    graph = image_graph()
    gp.backends.onnx.export(image_task(graph), folder / "overridable.onnx", program="overridable")
    gp.backends.onnx.export(image_task(graph), folder / "inputs.onnx", program="inputs")
    gp.save(image_task(graph, seed=1), folder / "other.safetensors")
    gp.backends.onnx.export(text_task(text_graph()), folder / "text.onnx")
    gp.backends.onnx.export(image_task(graph), folder / "per_row.onnx", program="per_row")
    return folder


def _images(rows: int = 10) -> torch.Tensor:
    return torch.rand(rows, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_options_reach_onnx_runtime() -> None:
    made = SessionOptions(threads=1, arena=False, optimization="basic").made()
    assert made.intra_op_num_threads == 1
    assert not made.enable_cpu_mem_arena
    assert not made.enable_mem_pattern
    assert made.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    plain, default = onnxruntime.SessionOptions(), SessionOptions().made()
    for name in ("intra_op_num_threads", "enable_cpu_mem_arena", "graph_optimization_level"):
        assert getattr(default, name) == getattr(plain, name)


def test_a_session_runs_with_options(folder: Path) -> None:
    path, images = folder / "overridable.onnx", _images()
    expected = Session(path, "cpu").run(images)
    for options in (SessionOptions(threads=1, arena=False, optimization="none"), None):
        assert np.allclose(Session(path, "cpu", options).run(images), expected, atol=1e-5)


def test_the_optimized_model_is_saved_and_loads_unoptimized(folder: Path, tmp_path: Path) -> None:
    path, images = folder / "text.onnx", text_batch(3, 6)
    saved = tmp_path / "optimized.onnx"
    session = Session(path, "cpu", SessionOptions(optimized=saved))
    before, after = (
        [node.op_type for node in onnx.load(file).graph.node] for file in (path, saved)
    )
    assert after != before
    again = Session(saved, "cpu", SessionOptions(optimization="none"))
    assert np.allclose(again.run(*images), session.run(*images), atol=1e-6)


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(BackendError, match="threads=0: there must be one or more"):
        SessionOptions(threads=0)
    with pytest.raises(BackendError, match="one of none, basic, extended, all"):
        SessionOptions(optimization="most")  # type: ignore[arg-type]


def test_any_number_of_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(folder / "overridable.onnx", "cpu")
    images = _images()
    sizes: list[int] = []
    evaluate = session.evaluate
    monkeypatch.setattr(
        session,
        "evaluate",
        lambda some, program: sizes.append(len(some[0])) or evaluate(some, program),
    )
    for program in (None, folder / "other.safetensors"):
        (found,) = run_in_batches(session, images, rows=4, program=program)
        assert np.allclose(found, session.run(images, program=program), atol=1e-5)
    assert sizes == [4, 4, 2, 10] * 2
    assert np.allclose(run_in_batches(session, images.numpy())[0], session.run(images), atol=1e-5)


def test_every_batch_gets_the_programs_of_its_rows(folder: Path) -> None:
    session = Session(folder / "per_row.onnx", "cpu")
    task = image_task(image_graph())
    session.add("own", task.program_state())
    session.add("other", folder / "other.safetensors")
    programs = ["own", "other", "other"] * 3 + ["own"]
    (found,) = run_in_batches(session, _images(), rows=4, program=programs)
    assert np.allclose(found, session.run(_images(), program=programs), atol=1e-5)
    (alone,) = run_in_batches(session, _images(), rows=4, program="own")
    assert not np.allclose(found, alone, atol=1e-2)
    with pytest.raises(BackendError, match="it has one program per row"):
        IOBinding(session, "own")


def test_inputs_of_different_lengths_are_refused(folder: Path) -> None:
    session = Session(folder / "text.onnx", "cpu")
    ids, present = text_batch(5, 6)
    with pytest.raises(DataError, match="inputs have 4 and 5 rows"):
        run_in_batches(session, ids, present[:4])
    with pytest.raises(DataError, match="inputs have 0 rows"):
        run_in_batches(session, ids[:0], present[:0])
    with pytest.raises(DataError, match="to be run 0 at a time"):
        run_in_batches(session, ids, present, rows=0)


@pytest.mark.parametrize("name", ["overridable", "inputs"])
def test_a_bound_program_runs_as_a_session_does(folder: Path, name: str) -> None:
    session = Session(folder / f"{name}.onnx", "cpu")
    bound = IOBinding(session, folder / "other.safetensors")
    assert bound.device == torch.device("cpu")
    for rows in (3, 7):
        (found,) = bound.run(_images(rows))
        assert isinstance(found, torch.Tensor)
        expected = session.run(_images(rows), program=folder / "other.safetensors")
        assert np.array_equal(found.numpy(), expected)


def test_bound_results_outlive_what_made_them(folder: Path) -> None:
    bound = IOBinding(Session(folder / "overridable.onnx", "cpu"))
    expected = Session(folder / "overridable.onnx", "cpu").run(_images())
    (found,) = bound.run(_images())
    bound.run(torch.zeros(50, 1, 8, 8))
    del bound
    assert np.array_equal(found.numpy(), expected)


def test_what_does_not_fit_is_not_bound(folder: Path) -> None:
    with pytest.raises(BackendError, match="the program has no program"):
        IOBinding(Session(folder / "inputs.onnx", "cpu"))
    bound = IOBinding(Session(folder / "text.onnx", "cpu"))
    ids, present = text_batch(2, 5)
    (found,) = bound.run(ids, present)
    assert np.array_equal(found, Session(folder / "text.onnx", "cpu").run(ids, present))
    with pytest.raises(DataError, match="ids"):
        bound.run(ids.float(), present)
