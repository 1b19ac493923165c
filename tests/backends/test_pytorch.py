"""PyTorch as a backend: compiled, and as .pt2 files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

import graphprog as gp
from graphprog.backends.pytorch import Loaded, compiled, export, load
from graphprog.errors import BackendError, DataError, FileError
from tests.models.deployed_tasks import (
    everything_of,
    image_graph,
    image_task,
    text_batch,
    text_graph,
    text_task,
)
from tests.support.environments import full_disk

pytestmark = pytest.mark.xdist_group("deployed-pytorch")


@pytest.fixture(scope="module")
def graph() -> gp.Graph:
    return image_graph()


@pytest.fixture(scope="module")
def task(graph: gp.Graph) -> gp.ReprogrammedModel:
    return image_task(graph)


@pytest.fixture(scope="module")
def path(task: gp.ReprogrammedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "task.pt2"
    before = everything_of(task)
    report = export(task, path)
    assert report.passed
    assert report.max_absolute == 0
    assert everything_of(task) == before
    return path


@pytest.fixture(scope="module")
def loaded(path: Path) -> Loaded:
    return load(path)


def test_loaded_is_the_task_bit_for_bit(loaded: Loaded, task: gp.ReprogrammedModel) -> None:
    for rows in (1, 2, 7):
        images = torch.rand(rows, 1, 8, 8)
        assert torch.equal(loaded(images), task(images))
    assert loaded.inputs == task.inputs
    assert loaded.contract == task.spec.contract
    assert loaded.labels == ()


def test_only_the_program_trains_in_a_loaded_file(loaded: Loaded) -> None:
    trainable = {name for name, p in loaded.module.named_parameters() if p.requires_grad}
    assert trainable == {"program.additive.value", "program.additive_1.value"}


def test_loaded_checks_its_inputs(loaded: Loaded) -> None:
    with pytest.raises(DataError, match=r"takes images"):
        loaded(torch.rand(2, 3, 8, 8))
    with pytest.raises(DataError, match=r"divide images"):
        loaded(torch.full((2, 1, 8, 8), 99.0))
    with pytest.raises(DataError, match=r"has 2 inputs"):
        loaded(torch.rand(2, 1, 8, 8), torch.rand(2))


def test_torch_opens_the_file_by_itself(path: Path, task: gp.ReprogrammedModel) -> None:
    images = torch.rand(3, 1, 8, 8)
    (found,) = torch.export.load(path).module()(images)
    assert torch.equal(found, task(images))


def test_lengths_not_seen_before(tmp_path: Path) -> None:
    task = text_task(text_graph())
    assert export(task, tmp_path / "text.pt2", inputs=text_batch(3, 9)).batch_sizes == (1, 3)
    restored = load(tmp_path / "text.pt2")
    for rows, length in ((1, 2), (4, 31)):
        batch = text_batch(rows, length)
        assert torch.equal(restored(*batch), task(*batch))


def test_bad_files_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"absent\.pt2: cannot be read"):
        load(tmp_path / "absent.pt2")
    data = path.read_bytes()
    middle = len(data) // 2
    contents = (b"", b"garbage", data[:middle], data[:middle] + b"\xff" * 64 + data[middle + 64 :])
    for content in contents:
        (tmp_path / "bad.pt2").write_bytes(content)
        with pytest.raises(FileError, match=r"bad\.pt2: "):
            load(tmp_path / "bad.pt2")


def test_a_file_of_torch_alone_is_not_ours(tmp_path: Path) -> None:
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.rand(2, 2),))
    torch.export.save(program, tmp_path / "plain.pt2")
    with pytest.raises(FileError, match="not a file of graphprog"):
        load(tmp_path / "plain.pt2")


def test_an_archive_without_a_model_is_an_error(path: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "x.pt2", "w") as part:
        for name in whole.namelist():
            if "/models/" not in name:
                part.writestr(name, whole.read(name))
    with pytest.raises(FileError, match="it has no models"):
        load(tmp_path / "x.pt2")


def test_a_full_disk_is_an_error(task: gp.ReprogrammedModel, tmp_path: Path) -> None:
    with full_disk(1_000), pytest.raises(FileError, match=r"task\.pt2: cannot be written"):
        export(task, tmp_path / "task.pt2")
    assert not list(tmp_path.iterdir())


def test_the_name_must_end_in_pt2(task: gp.ReprogrammedModel, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"ends in \.pt2"):
        export(task, tmp_path / "task.bin")


def test_compiled_is_the_task(task: gp.ReprogrammedModel) -> None:
    before = everything_of(task)
    fast = compiled(task, backend="aot_eager")
    assert everything_of(task) == before
    assert fast.report.passed
    assert fast.report.batch_sizes == (2, 5)
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(fast(images), task(images), atol=1e-6)
    with pytest.raises(DataError, match="takes images"):
        fast(torch.rand(2, 3, 8, 8))


def test_compiled_follows_the_program_and_trains_it(graph: gp.Graph) -> None:
    task = image_task(graph)
    fast = compiled(task, backend="aot_eager")
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        task.program.additive_1.value.add_(1)
        assert torch.allclose(fast(images), task(images), atol=1e-6)
    fast(images).square().sum().backward()
    got = task.program.additive_1.value.grad
    (expected,) = torch.autograd.grad(task(images).square().sum(), [task.program.additive_1.value])
    assert got is not None
    assert torch.allclose(got, expected, rtol=1e-4)


def test_a_compiler_that_fails_is_reported(task: gp.ReprogrammedModel) -> None:
    def broken(module: torch.fx.GraphModule, example: list[torch.Tensor]) -> None:
        raise RuntimeError("no compiler here")

    with pytest.raises(BackendError, match=r"(?s)no compiler here.*aot_eager"):
        compiled(task, backend=broken)


def test_a_compiler_that_computes_something_else_is_caught(task: gp.ReprogrammedModel) -> None:
    def wrong(module: torch.fx.GraphModule, example: list[torch.Tensor]) -> object:
        for node in module.graph.nodes:
            if node.target is torch.ops.aten.tanh.default:
                node.target = torch.ops.aten.sigmoid.default
        module.recompile()
        return module.forward

    with pytest.raises(BackendError, match=r"pytorch \(compile\) does not compute") as caught:
        compiled(task, backend=wrong)
    assert "first divergence" in str(caught.value)
    assert "input:images" in str(caught.value)
