"""The source in fewer bits, the program in float32, and a report that says what it costs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

import graphprog as gp
from graphprog.backends.onnx.quantize import Precision, QuantizationReport, quantize
from graphprog.backends.onnxruntime import Session
from graphprog.errors import BackendError, DataError, FileError
from tests.models.deployed_tasks import image_graph, image_task, text_batch, text_graph, text_task

pytestmark = pytest.mark.xdist_group("deployed-onnx")
precisions = pytest.mark.parametrize("source", ["int8", "float16", "bfloat16"])
FLOAT = onnx.TensorProto.FLOAT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image task folded and overridable, a text task, and another program for the image task."""
    folder = tmp_path_factory.mktemp("quantized")
    graph = image_graph()
    gp.backends.onnx.export(image_task(graph), folder / "folded.onnx")
    gp.backends.onnx.export(image_task(graph), folder / "overridable.onnx", program="overridable")
    gp.save(image_task(graph, seed=1), folder / "other.safetensors")
    gp.backends.onnx.export(text_task(text_graph()), folder / "text.onnx")
    return folder


def _images(rows: int = 40) -> torch.Tensor:
    return torch.rand(rows, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@precisions
@pytest.mark.parametrize("name", ["folded", "overridable"])
def test_what_it_costs_is_reported(
    folder: Path, tmp_path: Path, source: Precision, name: str
) -> None:
    path, to = folder / f"{name}.onnx", tmp_path / "small.onnx"
    images = _images()
    before = Session(path, "cpu").run(images)
    labels = before.argmax(1)
    labels[:10] = (labels[:10] + 1) % 5  # a quarter is wrong
    report = quantize(path, to, source, inputs=(images,), labels=labels, providers="cpu")
    after = Session(to, "cpu").run(images)
    assert report.rows == 40
    assert report.max_absolute == pytest.approx(float(np.abs(before - after).max()))
    assert 0 < report.max_relative < 0.05
    assert report.label_agreement == np.mean(before.argmax(1) == after.argmax(1))
    assert report.accuracy_before == 0.75
    assert report.accuracy_after == np.mean(after.argmax(1) == labels)
    assert (report.bytes_before, report.bytes_after) == (path.stat().st_size, to.stat().st_size)
    assert f"source in           {source}" in str(report)
    assert "accuracy            75.00% before" in str(report)


@precisions
def test_programs_fit_both_files(folder: Path, tmp_path: Path, source: Precision) -> None:
    to, images, other = tmp_path / "small.onnx", _images(), folder / "other.safetensors"
    quantize(folder / "overridable.onnx", to, source, program=other, providers="cpu")
    session, exact = (Session(path, "cpu") for path in (to, folder / "overridable.onnx"))
    assert session.overridable == exact.overridable
    own, switched = exact.run(images), exact.run(images, program=other)
    assert np.abs(own - switched).max() > 0.1
    assert np.abs(session.run(images, program=other) - switched).max() < 0.02
    assert np.abs(session.run(images) - own).max() < 0.02


def _of_program(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    own = [tensor for tensor in graph.initializer if tensor.name.startswith("program.")]
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in own}


@precisions
def test_the_program_stays_in_float32(folder: Path, tmp_path: Path, source: Precision) -> None:
    path, to = folder / "overridable.onnx", tmp_path / "small.onnx"
    quantize(path, to, source, providers="cpu")
    before, after = (onnx.load(file).graph for file in (path, to))
    own, kept = (
        {
            t.name: numpy_helper.to_array(t)
            for t in graph.initializer
            if t.name.startswith("program.")
        }
        for graph in (before, after)
    )
    assert len(own) == 6
    assert kept.keys() == own.keys()
    assert all(kept[name].dtype == np.float32 for name in own)
    assert all(np.array_equal(kept[name], own[name]) for name in own)
    for graph in (before, after):  # the program's operations read what is float32
        casts = {n.output[0]: n for n in graph.node if n.op_type == "Cast"}
        for node in graph.node:
            if node.name.startswith("program.") and node.op_type in ("Add", "Mul", "Sub", "Div"):
                for name in node.input:
                    to_types = [a.i for a in casts[name].attribute] if name in casts else [FLOAT]
                    assert to_types == [FLOAT], (node.name, name)


def test_what_is_stored_and_computed_in_which_precision(folder: Path, tmp_path: Path) -> None:
    found = {}
    for source in ("int8", "float16", "bfloat16"):
        to = tmp_path / f"{source}.onnx"
        quantize(folder / "folded.onnx", to, source, providers="cpu")
        graph = onnx.load(to).graph
        weights = [t for t in graph.initializer if len(t.dims) == 4 and "val" not in t.name]
        types = {onnx.TensorProto.DataType.Name(t.data_type) for t in weights if len(t.dims) == 4}
        found[source] = types, Counter(node.op_type for node in graph.node)
    types, operations = found["int8"]
    assert types == {"INT8", "FLOAT"}  # the weights, and a scale for each output channel
    assert operations["MatMulInteger"] == 3
    assert operations["Conv"] == 4
    assert operations["ConvInteger"] == 0
    assert found["float16"][0] == {"FLOAT16"}
    assert found["bfloat16"][0] == {"BFLOAT16"}


def test_texts_with_masks(folder: Path, tmp_path: Path) -> None:
    given = text_batch(4, 9)
    for source in ("int8", "float16", "bfloat16"):
        report = quantize(
            folder / "text.onnx", tmp_path / "small.onnx", source, inputs=given, providers="cpu"
        )
        assert report.max_relative < 0.05
        assert Session(tmp_path / "small.onnx", "cpu").run(*text_batch(2, 5)).shape == (2, 4)


@pytest.mark.parametrize("spread", [1e-3, 300.0])
def test_depthwise_convolutions_keep_their_accuracy_in_int8(tmp_path: Path, spread: float) -> None:
    """One scale for all channels would lose the small ones."""
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(8, 8, 3, groups=8, bias=False)
    convolution.weight.data *= torch.logspace(0, float(np.log10(spread)), 8)[:, None, None, None]
    model = torch.nn.Sequential(convolution, torch.nn.InstanceNorm2d(8), torch.nn.Flatten())
    graph = gp.capture(model.eval(), (torch.rand(2, 8, 6, 6),))
    gp.backends.onnx.export(gp.compile(graph, gp.Program()), tmp_path / "whole.onnx")
    report = quantize(
        tmp_path / "whole.onnx", tmp_path / "small.onnx", "int8", inputs=(torch.rand(4, 8, 6, 6),)
    )
    assert report.max_relative < 0.03


def test_a_program_a_row_stays_one(folder: Path, tmp_path: Path) -> None:
    task = image_task(image_graph())
    gp.backends.onnx.export(task, tmp_path / "per_row.onnx", program="per_row")
    programs = [task.program_state(), folder / "other.safetensors"] * 2
    for source in ("int8", "float16", "bfloat16"):
        to = tmp_path / f"{source}.onnx"
        report = quantize(
            tmp_path / "per_row.onnx", to, source, inputs=(_images(4),), program=programs[0]
        )
        assert report.max_relative < 0.05
        exact, small = (Session(path, "cpu") for path in (tmp_path / "per_row.onnx", to))
        expected = exact.run(_images(4), program=programs)
        found = small.run(_images(4), program=programs)
        assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def _worst_pair(model: onnx.ModelProto) -> int:
    """The largest sum that two neighboring products of 8 bits reach in a 16-bit register.

    Kernels of processors without VNNI instructions (`vpmaddubsw`) take an unsigned and a signed
    factor. Where both are unsigned, factors are widened first, and no product is added in 16 bits.
    """
    tensors = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    worst = 0
    for node in model.graph.node:
        if node.op_type == "MatMulInteger" and tensors[node.input[1]].dtype == np.int8:
            weight = np.abs(tensors[node.input[1]].astype(np.int64))
            worst = max(worst, 255 * int((weight[:-1] + weight[1:]).max()))
    return worst


def test_products_of_8_bits_are_added_without_saturation(folder: Path, tmp_path: Path) -> None:
    for name in ("folded", "text"):
        quantize(folder / f"{name}.onnx", tmp_path / "int8.onnx", "int8", providers="cpu")
        model = onnx.load(tmp_path / "int8.onnx")
        assert _worst_pair(model) <= 32_767
        tensors = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
        products = [node for node in model.graph.node if node.op_type == "MatMulInteger"]
        assert products
        for node in products:
            weight, zero = tensors[node.input[1]], tensors[node.input[3]]
            assert weight.dtype == zero.dtype == np.uint8
            assert (zero == 128).all()
            assert weight.min() <= 3, "the whole range is used"
            assert weight.max() >= 253, "the whole range is used"


def test_random_rows_where_none_are_given(folder: Path, tmp_path: Path) -> None:
    report = quantize(folder / "text.onnx", tmp_path / "small.onnx", "bfloat16", providers="cpu")
    assert report.rows == 8
    assert report.accuracy_before is report.accuracy_after is None
    assert "accuracy" not in str(report)


def test_what_cannot_be_done_leaves_an_old_file(folder: Path, tmp_path: Path) -> None:
    to = tmp_path / "small.onnx"
    report = quantize(folder / "folded.onnx", to, "float16", providers="cpu")
    assert isinstance(report, QuantizationReport)
    held = to.read_bytes()
    with pytest.raises(BackendError, match="one of int8, float16, bfloat16"):
        quantize(folder / "folded.onnx", to, "int4")  # type: ignore[arg-type]
    for again in ("int8", "float16"):
        with pytest.raises(BackendError, match="the source is not in float32"):
            quantize(to, to, again)
    with pytest.raises(DataError, match=r"labels are \[3\], one per row is \[40\]"):
        quantize(folder / "folded.onnx", to, "int8", inputs=(_images(),), labels=np.zeros(3))
    with pytest.raises(FileError, match="no such file"):
        quantize(folder / "absent.onnx", to, "int8")
    assert to.read_bytes() == held


class Tied(nn.Module):
    """A language model in small: what reads tokens tells them apart in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 16)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return functional.linear(self.table(ids).tanh()[:, 0], self.table.weight)


def test_a_table_that_is_also_a_layer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Tied().requires_grad_(False)
    ids = torch.randint(40, (3, 5))
    task = gp.compile(gp.capture(model, (ids,)), gp.Program([]))
    gp.backends.onnx.export(task, tmp_path / "tied.onnx")
    report = quantize(tmp_path / "tied.onnx", tmp_path / "int8.onnx", "int8", inputs=(ids,))
    assert 0 < report.max_relative < 0.03
    assert report.label_agreement == 1


def test_layers_whose_weights_the_graph_turns_round(tmp_path: Path) -> None:
    """Large weights are not transposed when a file is written."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 600), nn.GELU(), nn.Linear(600, 600), nn.Linear(600, 4))
    tokens = torch.rand(3, 5, 6)
    task = gp.compile(gp.capture(model.eval(), (tokens,)), gp.Program([]))
    gp.backends.onnx.export(task, tmp_path / "tokens.onnx")
    report = quantize(tmp_path / "tokens.onnx", tmp_path / "int8.onnx", "int8", inputs=(tokens,))
    assert report.bytes_after < 0.3 * report.bytes_before
    assert report.max_relative < 0.05
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node)
    assert kinds["MatMulInteger"] == 3
    assert not kinds["MatMul"] + kinds["Transpose"]
