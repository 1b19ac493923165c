"""Comparing a lowered task with the task, and finding backends."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import graphprog as gp
from graphprog.backends.parity.report import Backend, compare, example_batch, parity_batches
from graphprog.errors import BackendError, DataError
from graphprog.utils.numerics import difference
from tests.models.deployed_tasks import image_graph, image_task, text_batch, text_graph, text_task
from tests.support.environments import ROOT

pytestmark = pytest.mark.xdist_group("deployed-base")


@pytest.fixture(scope="module")
def task() -> gp.ReprogrammedModel:
    return image_task(image_graph())


@pytest.mark.parametrize(
    ("right", "found", "absolute", "relative"),
    [
        ([1.0, -4.0], [1.0, -4.0], 0.0, 0.0),
        ([1.0, -4.0], [1.5, -4.0], 0.5, 0.125),
        ([0.0], [0.5], 0.5, math.inf),
        ([0.0], [0.0], 0.0, 0.0),
        ([math.inf, math.nan, 2.0], [math.inf, math.nan, 3.0], 1.0, 0.5),
        ([1.0], [math.nan], math.inf, math.inf),
        ([math.inf], [-math.inf], math.inf, math.inf),
        ([True, False], [True, True], 1.0, 1.0),
        ([], [], 0.0, 0.0),
        ([1.0], [1.0, 1.0], math.inf, math.inf),
    ],
)
def test_difference(
    right: list[float], found: list[float], absolute: float, relative: float
) -> None:
    gap = difference(torch.tensor(right), np.asarray(found))
    assert (gap.absolute, gap.relative) == (absolute, relative)


def test_half_precision_is_compared_too() -> None:
    assert difference(torch.ones(2, dtype=torch.bfloat16), np.ones(2)).absolute == 0


def test_a_report_reads_well(task: gp.ReprogrammedModel) -> None:
    def run(inputs: tuple[torch.Tensor, ...]) -> list[np.ndarray]:
        with torch.no_grad():
            logits = task(*inputs).numpy()
        logits[0] = -logits[0]
        return [logits]

    report = compare(task, run, parity_batches(task), "mirror", tolerance=0.001)
    assert not report.passed
    assert report.rows == 6
    assert report.label_agreement == pytest.approx(4 / 6)
    text = str(report)
    assert text.startswith("parity of mirror")
    assert "FAILED" in text
    assert "6, in batches of 1 and 5" in text
    assert "66.67%" in text


def test_differences_count_relative_to_the_magnitude(task: gp.ReprogrammedModel) -> None:
    def run(inputs: tuple[torch.Tensor, ...]) -> list[np.ndarray]:
        with torch.no_grad():
            return [task(*inputs).numpy() * 1.01]

    batches = parity_batches(task)
    assert compare(task, run, batches, "scaled", tolerance=0.011).passed
    assert not compare(task, run, batches, "scaled", tolerance=1e-5).passed


def test_a_backend_with_other_outputs_is_refused(task: gp.ReprogrammedModel) -> None:
    with pytest.raises(BackendError, match="returned 0 outputs, not 1"):
        compare(task, lambda _: [], parity_batches(task), "empty")


def test_batches_of_given_examples(task: gp.ReprogrammedModel) -> None:
    images = torch.rand(4, 1, 8, 8)
    assert [len(x) for (x,) in parity_batches(task, (images,))] == [1, 4]
    assert [len(x) for (x,) in parity_batches(task, (images[:1],))] == [1]
    (two,) = example_batch(task, (images[:1],))
    assert torch.equal(two, images[[0, 0]])
    with pytest.raises(DataError, match="the graph takes images"):
        parity_batches(task, (torch.rand(4, 3, 8, 8),))


def test_all_inputs_that_share_the_batch_are_cut() -> None:
    task = text_task(text_graph())
    batches = parity_batches(task, text_batch(3, 5))
    assert [[tuple(x.shape) for x in batch] for batch in batches] == [
        [(1, 5), (1, 5)],
        [(3, 5), (3, 5)],
    ]


def test_a_fixed_batch_is_compared_at_its_size(tmp_path: Path) -> None:
    model = torch.nn.Linear(4, 3)
    graph = gp.capture(model, (torch.rand(2, 4),), dynamic_axes={"input": {}})
    task = gp.compile(graph, gp.Program())
    report = gp.backends.onnx.export(task, tmp_path / "fixed.onnx")
    assert report.passed
    assert gp.backends.onnxruntime.Session(tmp_path / "fixed.onnx").inputs[0].shape == (2, 4)


def test_backends_load_when_named() -> None:
    script = (
        "import sys, graphprog as gp\n"
        "early = {'onnx', 'onnxscript', 'onnxruntime', 'onnx_ir'} & set(sys.modules)\n"
        "assert not early, early\n"
        "import onnxruntime, onnx\n"
        "assert gp.backends.onnxruntime.Session\n"
        "assert gp.backends.onnx.export\n"
        "from graphprog.backends.onnx_model import external_data\n"
        "from graphprog.backends.onnxruntime import providers\n"
        "assert providers.onnxruntime is onnxruntime\n"
        "assert external_data.onnx is onnx\n"
        "assert gp.backends.pytorch.export\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_own_backends_are_backends() -> None:
    assert isinstance(gp.backends.onnx, Backend)
    assert isinstance(gp.backends.pytorch, Backend)
    assert {"onnx", "onnxruntime", "pytorch"} <= set(dir(gp.backends))


def install_plugin(folder: Path, body: str) -> None:
    (folder / "tiny_backend.py").write_text(body)
    metadata = folder / "tiny_backend-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-backend\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[graphprog.backends]\ntiny = tiny_backend\n")


def test_other_packages_add_backends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: gp.ReprogrammedModel
) -> None:
    install_plugin(tmp_path, "def export(task, path, *, tolerance=1e-4):\n    return 'exported'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert gp.backends.tiny.export(task, "file") == "exported"
    assert "tiny" in dir(gp.backends)


def test_a_plugin_without_export_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(tmp_path, "exports = None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tiny_backend", raising=False)
    with pytest.raises(BackendError, match=r"entry point 'tiny' .* has no export function"):
        _ = gp.backends.tiny


def test_an_unknown_backend_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"no backend 'coreml'; it has .*onnx"):
        _ = gp.backends.coreml
