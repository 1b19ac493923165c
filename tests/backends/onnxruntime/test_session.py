"""Sessions: inputs checked against the contract, programs swapped, bad files refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import graphprog as gp
from graphprog.backends.onnxruntime import Session
from graphprog.errors import BackendError, DataError, FileError
from tests.models.deployed_tasks import UNIT, image_graph, image_task, text_graph, text_task

pytestmark = pytest.mark.xdist_group("deployed-onnxruntime")

LABELED = gp.Contract(space="unit", mean=UNIT.mean, std=UNIT.std, labels=("a", "b", "c", "d", "e"))


@pytest.fixture(scope="module")
def graph() -> gp.Graph:
    return image_graph()


@pytest.fixture(scope="module")
def task(graph: gp.Graph) -> gp.ReprogrammedModel:
    return image_task(graph, contract=LABELED)


@pytest.fixture(scope="module")
def folder(task: gp.ReprogrammedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sessions")
    gp.backends.onnx.export(task, folder / "folded.onnx")
    gp.backends.onnx.export(task, folder / "overridable.onnx", program="overridable")
    return folder


@pytest.fixture(scope="module")
def session(folder: Path) -> Session:
    return Session(folder / "overridable.onnx")


def logits(task: gp.ReprogrammedModel, images: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = task(images).numpy()
    return found


def test_tensors_arrays_and_names(session: Session, task: gp.ReprogrammedModel) -> None:
    images = torch.rand(3, 1, 8, 8)
    expected = logits(task, images)
    read_only = images.numpy().copy()
    read_only.flags.writeable = False
    for found in (
        session.run(images),
        session.run(images.numpy()),
        session.run(images=images),
        session.run(read_only),
        session.run(images.numpy()[:, :, ::-1][:, :, ::-1]),
        session.run(torch.nn.Parameter(images)),
    ):
        assert found.shape == (3, 5)
        assert found.dtype == np.float32
        assert np.allclose(found, expected, atol=1e-5)


def test_half_precision_inputs_are_widened(session: Session, task: gp.ReprogrammedModel) -> None:
    images = torch.rand(3, 1, 8, 8).half()
    assert np.allclose(session.run(images), logits(task, images.float()), atol=1e-5)


def test_what_the_file_says(session: Session, task: gp.ReprogrammedModel) -> None:
    assert session.labels == ("a", "b", "c", "d", "e")
    assert session.contract == task.spec.contract
    assert session.inputs == task.inputs
    assert session.document.outputs == ("logits",)
    assert session.document.source == task.base.fingerprint


def test_predict_names_the_classes(session: Session, task: gp.ReprogrammedModel) -> None:
    images = torch.rand(6, 1, 8, 8)
    expected = ["abcde"[number] for number in logits(task, images).argmax(1)]
    assert session.predict(images) == expected


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(2, 3, 8, 8), r"takes images: f32\[B,1,8,8\], but was given f32\[2,3,8,8\]"),
        (torch.rand(1, 8, 8), r"was given f32\[1,8,8\]"),
        (torch.rand(2, 1, 8, 8).double(), r"was given f64"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), r"was given u8"),
        (torch.full((2, 1, 8, 8), 255.0), r"divide images of \[0, 255\] by 255"),
        (torch.full((2, 1, 8, 8), -1.0), r"values lie in \[-1, -1\]"),
        (torch.full((2, 1, 8, 8), float("nan")), r"row 0 of the batch .* not finite"),
        (np.array(["text"]), r"not an array of numbers"),
    ],
)
def test_bad_inputs_are_refused_as_the_task_refuses_them(
    session: Session, task: gp.ReprogrammedModel, images: torch.Tensor, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        session.run(images)
    if isinstance(images, torch.Tensor):
        with pytest.raises(DataError) as own:
            task.check((images,))
        assert str(own.value) == str(caught.value)


def test_arguments_must_match_the_inputs(session: Session) -> None:
    images = torch.rand(2, 1, 8, 8)
    for call in (
        lambda: session.run(),
        lambda: session.run(images, images),
        lambda: session.run(pictures=images),
        lambda: session.run(images, images=images),
    ):
        with pytest.raises(DataError, match="the model takes images"):
            call()


def test_programs_are_swapped(
    session: Session, graph: gp.Graph, task: gp.ReprogrammedModel, tmp_path: Path
) -> None:
    names = gp.Contract(space="unit", mean=UNIT.mean, std=UNIT.std, labels=tuple("vwxyz"))
    other = image_task(graph, seed=1, contract=names)
    images = torch.rand(4, 1, 8, 8)
    expected = logits(other, images)
    assert abs(expected - logits(task, images)).max() > 1e-3
    gp.save(other, tmp_path / "other.safetensors")
    loaded = session.load_program(tmp_path / "other.safetensors")
    for program in (loaded, loaded.tensors, tmp_path / "other.safetensors"):
        assert np.allclose(session.run(images, program=program), expected, atol=1e-5)
    assert np.allclose(session.run(images), logits(task, images), atol=1e-5)
    assert session.predict(images, program=loaded) == ["vwxyz"[n] for n in expected.argmax(1)]


def test_one_tensor_can_be_replaced(session: Session, task: gp.ReprogrammedModel) -> None:
    images = torch.rand(4, 1, 8, 8)
    weights = task.program_state()["program.align.weights"].flip(1)
    found = session.run(images, program={"program.align.weights": weights})
    assert np.allclose(found, logits(task, images)[:, ::-1], atol=1e-5)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ({"program.align.weight": torch.zeros(24, 5)}, r"program\.align\.weight: float32\[24,5\]"),
        ({"program.align.weights": torch.zeros(24, 6)}, r"replaces no tensor .*\n.*\[24,5\]"),
        ({"program.align.weights": torch.zeros(24, 5).double()}, r"float64\[24,5\] replaces no"),
        ({"source.head.bias": torch.zeros(24)}, r"source\.head\.bias: float32\[24\] replaces no"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    session: Session, program: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises(BackendError, match=rf"(?s){message}"):
        session.run(torch.rand(1, 1, 8, 8), program=program)


def test_a_folded_file_has_no_program_to_swap(folder: Path, task: gp.ReprogrammedModel) -> None:
    session = Session(folder / "folded.onnx")
    assert session.overridable == {}
    with pytest.raises(BackendError, match=r'folded in .*\n.*program="overridable"'):
        session.run(torch.rand(1, 1, 8, 8), program=task.program_state())


def test_a_program_for_another_source_is_refused(session: Session, tmp_path: Path) -> None:
    torch.manual_seed(5)
    graph = image_graph()
    with torch.no_grad():
        graph.weights.source.head.bias.add_(1)
    gp.save(image_task(graph), tmp_path / "other.safetensors")
    with pytest.raises(FileError, match=r"other\.safetensors.* other weights"):
        session.load_program(tmp_path / "other.safetensors")


def test_a_program_of_another_kind_is_refused(
    session: Session, graph: gp.Graph, tmp_path: Path
) -> None:
    for align in (gp.BayesianMap(6), gp.LinearHead(5), gp.BayesianMap(5, top=0.5)):
        gp.save(image_task(graph, align), tmp_path / "other.safetensors")
        with pytest.raises(FileError, match="is not of the kind that"):
            session.run(torch.rand(1, 1, 8, 8), program=tmp_path / "other.safetensors")


def test_fixed_tensors_of_a_program_must_be_the_same(graph: gp.Graph, tmp_path: Path) -> None:
    def steered(value: float) -> gp.ReprogrammedModel:
        fixed = gp.Fixed(torch.full((8, 1, 1), value))
        parts = [gp.Additive(at="blocks.0:out", value=fixed)]
        return gp.compile(graph, gp.Program(parts, align=gp.LinearHead(3)))

    gp.backends.onnx.export(steered(1.0), tmp_path / "task.onnx", program="overridable")
    session = Session(tmp_path / "task.onnx")
    gp.save(steered(1.0), tmp_path / "same.safetensors")
    gp.save(steered(2.0), tmp_path / "other.safetensors")
    session.load_program(tmp_path / "same.safetensors")
    with pytest.raises(FileError, match="is not of the kind that"):
        session.load_program(tmp_path / "other.safetensors")


def test_without_labels_there_is_nothing_to_predict(tmp_path: Path) -> None:
    task = text_task(text_graph())
    gp.backends.onnx.export(task, tmp_path / "text.onnx")
    with pytest.raises(BackendError, match="does not name its classes"):
        Session(tmp_path / "text.onnx").predict(*task.input_example(1))


def test_a_session_says_nothing_on_stderr(
    folder: Path, capfd: pytest.CaptureFixture[str], session: Session
) -> None:
    Session(folder / "overridable.onnx").run(torch.rand(2, 1, 8, 8))
    captured = capfd.readouterr()
    assert captured.err == ""
    assert captured.out == ""
