"""Every alignment, folded and overridable, computes in ONNX Runtime what it does in PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import graphprog as gp
from graphprog.backends.onnx import Mode
from tests.models.deployed_tasks import image_graph, image_task

pytestmark = pytest.mark.xdist_group("deployed-alignments")

ALIGNMENTS = [
    gp.RandomMap(5),
    gp.FixedMap(5, per_class=3, aggregate="probabilities"),
    gp.FrequencyMap(5),
    gp.IterativeMap(5, per_class=2, aggregate="logsumexp"),
    gp.BayesianMap(5),
    gp.BayesianMap(5, top=0.5),
    gp.LinearHead(5, at="blocks.2:out", pool="mean"),
    gp.Identity(),
]


@pytest.fixture(scope="module")
def graph() -> gp.Graph:
    return image_graph()


@pytest.mark.parametrize(
    ("align", "mode"),
    [
        pytest.param(align, mode, marks=[pytest.mark.slow] * ((number + place) % 2))
        for number, align in enumerate(ALIGNMENTS)
        for place, mode in enumerate(("folded", "overridable"))
    ],
    ids=str,
)
def test_every_alignment_is_computed_alike(
    graph: gp.Graph, align: gp.Alignment, mode: Mode, tmp_path: Path
) -> None:
    task = image_task(graph, align)
    report = gp.backends.onnx.export(task, tmp_path / "task.onnx", program=mode, tolerance=1e-5)
    assert report.passed
    assert report.batch_sizes == (1, 5)
    assert report.label_agreement == 1.0
    session = gp.backends.onnxruntime.Session(tmp_path / "task.onnx")
    tensors = {name for name in task.program_state() if name.startswith("program.align.")}
    tensors -= {"program.align.refreshed"}  # a note that no operation reads
    assert {name for name in session.overridable if name.startswith("program.align.")} == (
        tensors if mode == "overridable" else set()
    )
    images = torch.rand(17, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(session.run(images)), task(images), atol=1e-5)
