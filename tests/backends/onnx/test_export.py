"""ONNX files: equal to the task, standard, self-describing, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

import graphprog as gp
from graphprog.backends.onnx import Mode
from graphprog.backends.onnx_model import translate
from graphprog.backends.onnx_model.lower import module_path
from graphprog.errors import BackendError, DataError
from graphprog.spec.registry import from_json
from tests.models.deployed_tasks import (
    everything_of,
    image_graph,
    image_task,
)

pytestmark = pytest.mark.xdist_group("deployed-onnx")

MODES: tuple[Mode, ...] = ("folded", "overridable")


@pytest.fixture(scope="module")
def graph() -> gp.Graph:
    return image_graph()


@pytest.fixture(scope="module")
def task(graph: gp.Graph) -> gp.ReprogrammedModel:
    return image_task(graph)


@pytest.fixture(scope="module")
def files(task: gp.ReprogrammedModel, tmp_path_factory: pytest.TempPathFactory) -> dict[Mode, Path]:
    """The same task, exported both ways; the task must come out of it untouched."""
    folder = tmp_path_factory.mktemp("exported")
    before = everything_of(task)
    found = {}
    for mode in MODES:
        found[mode] = folder / f"{mode}.onnx"
        assert gp.backends.onnx.export(task, found[mode], program=mode).passed
        assert everything_of(task) == before, mode
    return found


def test_inputs_outputs_and_axes_keep_their_names(files: dict[Mode, Path]) -> None:
    for path in files.values():
        model = ir.load(path)
        taken = [value for value in model.graph.inputs if not value.is_initializer()]
        assert [(value.name, str(value.shape)) for value in taken] == [("images", "[batch,1,8,8]")]
        assert [(value.name, str(value.shape)) for value in model.graph.outputs] == [
            ("logits", "[batch,5]")
        ]


def test_the_folded_file_has_nothing_of_the_program_left_to_compute(
    files: dict[Mode, Path],
) -> None:
    model = ir.load(files["folded"])
    operations = [node.op_type for node in model.graph]
    assert "Tanh" in operations  # of the source model
    assert "program.additive.value" not in model.graph.initializers
    constant = [value for value in model.graph.inputs if value.is_initializer()]
    assert constant == []
    for node in model.graph:
        inputs = [value for value in node.inputs if value is not None]
        assert not all(value.const_value is not None for value in inputs), node.name


def test_overridable_tensors_stay_initializers_that_are_inputs(files: dict[Mode, Path]) -> None:
    model = ir.load(files["overridable"])
    values = [value for value in model.graph.inputs if value.is_initializer()]
    assert {value.name for value in values} == {
        "program.additive.value",
        "program.additive.mask",
        "program.additive_1.value",
        "program.normalize.mean",
        "program.normalize.std",
        "program.align.weights",
    }
    assert all(value.const_value is not None for value in values)


def test_translations_are_read_once_and_torch_keeps_its_own(
    task: gp.ReprogrammedModel,
    files: dict[Mode, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = ONNXRegistry.__dict__["from_torchlib"]
    monkeypatch.setattr(translate, "_READ", None)  # another reading would fail
    gp.backends.onnx.export(task, tmp_path / "task.onnx", program="folded")
    assert (tmp_path / "task.onnx").read_bytes() == files["folded"].read_bytes()
    assert ONNXRegistry.__dict__["from_torchlib"] is own

    (opset, *_) = translate._KNOWN
    changed, fresh = translate._registry(opset), translate._registry(opset)
    changed.register_op(torch.ops.aten.relu.default, lambda x: x)
    relu = torch.ops.aten.relu.default.name()
    assert len(changed.functions[relu]) == len(fresh.functions[relu]) + 1


@pytest.mark.parametrize("mode", MODES)
def test_the_source_is_optimized_in_both_modes(files: dict[Mode, Path], mode: Mode) -> None:
    operations = [node.op_type for node in ir.load(files[mode]).graph]
    assert "BatchNormalization" not in operations
    assert "Constant" not in operations


def test_equal_tensors_of_a_overridable_program_are_not_merged(
    graph: gp.Graph, tmp_path: Path
) -> None:
    zeros = [gp.Additive(at=f"blocks.{i}:out", value=gp.Learnable(shape=(8, 1, 1))) for i in (0, 1)]
    task = gp.compile(graph, gp.Program(zeros, align=gp.FixedMap(5)))
    gp.backends.onnx.export(task, tmp_path / "task.onnx", program="overridable")
    session = gp.backends.onnxruntime.Session(tmp_path / "task.onnx")
    assert {"program.additive.value", "program.additive_1.value"} <= set(session.overridable)


def test_a_overridable_value_of_nought_or_one_is_still_added(
    graph: gp.Graph, tmp_path: Path
) -> None:
    task = gp.compile(
        graph, gp.Program([gp.Additive(at="left:out", value=gp.Learnable(shape=(1,)))])
    )
    gp.backends.onnx.export(task, tmp_path / "task.onnx", program="overridable")
    session = gp.backends.onnxruntime.Session(tmp_path / "task.onnx")
    images = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        task.program.additive.value.fill_(0.5)
        changed = session.run(images, program=task.program_state())
        assert torch.allclose(torch.from_numpy(changed), task(images), atol=1e-5)
    assert abs(changed - session.run(images)).max() > 1e-3


@pytest.mark.parametrize("mode", MODES)
def test_nodes_keep_the_path_of_their_module(files: dict[Mode, Path], mode: Mode) -> None:
    nodes = list(ir.load(files[mode]).graph)
    parts = {"program.resize_pad", "program.additive", "program.additive_1", "program.align"}
    assert parts <= {module_path(node) for node in nodes}
    assert parts <= {(node.name or "").split("/")[0] for node in nodes}
    names = [node.name for node in nodes]
    assert len(names) == len(set(names))
    assert any((name or "").startswith("blocks.1.0/") for name in names)
    assert not any("stack_trace" in key for node in nodes for key in node.metadata_props)


@pytest.mark.parametrize("mode", MODES)
def test_only_standard_operations(files: dict[Mode, Path], mode: Mode) -> None:
    model = onnx.load(files[mode])
    assert [entry.domain for entry in model.opset_import] == [""]
    assert not model.functions
    onnx.checker.check_model(model, full_check=True)


def test_the_file_says_what_it_is(files: dict[Mode, Path], task: gp.ReprogrammedModel) -> None:
    entries = {entry.key: entry.value for entry in onnx.load(files["folded"]).metadata_props}
    assert entries["graphprog.program"] == str(task.spec)
    assert entries["graphprog.pipeline"] == str(task.pipeline)
    assert entries["graphprog.mode"] == "folded"
    document = json.loads(entries["graphprog"])
    assert document["format"] == {"name": "graphprog-deployed", "version": 1}
    assert document["graphprog"] == gp.__version__
    assert from_json(document["program"], {}) == task.spec
    assert from_json(document["contract"], {}) == task.spec.contract
    assert document["source"]["weights"] == task.base.fingerprint.weights
    assert document["inputs"] == [{"name": "images", "shape": ["B", 1, 8, 8], "dtype": "float32"}]


def test_labels_can_be_read_by_eye(graph: gp.Graph, tmp_path: Path) -> None:
    contract = gp.Contract(labels=("one", "two"))
    task = gp.compile(graph, gp.Program([], align=gp.FixedMap(2), contract=contract))
    gp.backends.onnx.export(task, tmp_path / "task.onnx")
    entries = {e.key: e.value for e in onnx.load(tmp_path / "task.onnx").metadata_props}
    assert json.loads(entries["graphprog.labels"]) == ["one", "two"]


def test_a_chosen_opset_is_used_or_refused(task: gp.ReprogrammedModel, tmp_path: Path) -> None:
    path = tmp_path / "task.onnx"
    gp.backends.onnx.export(task, path, opset=18)
    assert onnx.load(path).opset_import[0].version == 18
    with pytest.raises(BackendError, match=r"opset 7 cannot be had"):
        gp.backends.onnx.export(task, path, opset=7)


def test_a_failed_export_says_where_and_leaves_the_old_file(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4))
    task = gp.compile(gp.capture(model, (torch.rand(2, 6),)), gp.Program())
    path = tmp_path / "task.onnx"
    path.write_bytes(b"old")
    with pytest.raises(BackendError) as caught:
        gp.backends.onnx.export(task, path, tolerance=-1.0)  # nothing is that equal
    text = str(caught.value)
    assert "onnx (folded) does not compute what the task does" in text
    assert "parity of onnx (folded)  FAILED" in text
    assert "first divergence         0:out" in text
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_bad_arguments(task: gp.ReprogrammedModel, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="one of folded, overridable, inputs"):
        gp.backends.onnx.export(task, tmp_path / "x.onnx", program="baked")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"divide images of \[0, 255\] by 255"):
        gp.backends.onnx.export(
            task, tmp_path / "x.onnx", inputs=(torch.full((2, 1, 8, 8), 200.0),)
        )
