"""Every alignment survives torch.export and ONNX with a batch of any size."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

from graphprog.alignments import (
    Alignment,
    BayesianMap,
    FixedMap,
    FrequencyMap,
    Identity,
    IterativeMap,
    LinearHead,
    RandomMap,
    StatisticalModule,
)
from graphprog.values.context import BuildContext

SOURCES, CLASSES = 24, 5
CASES: list[tuple[Alignment, tuple[int, ...]]] = [
    (RandomMap(CLASSES), (SOURCES,)),
    (FixedMap(CLASSES, per_class=3, aggregate="logits"), (SOURCES,)),
    (FixedMap(CLASSES, per_class=3, aggregate="probabilities"), (SOURCES,)),
    (FrequencyMap(CLASSES), (SOURCES,)),
    (IterativeMap(CLASSES, per_class=2, aggregate="logsumexp"), (SOURCES,)),
    (BayesianMap(CLASSES), (SOURCES,)),
    (BayesianMap(CLASSES, top=0.5), (SOURCES,)),
    (LinearHead(CLASSES), (SOURCES,)),
    (LinearHead(CLASSES, bias=False, pool="mean"), (6, 3, 3)),
    (LinearHead(CLASSES, pool="last"), (4, 6)),
    (LinearHead(CLASSES, pool="flatten"), (4, 6)),
]


def prepared(alignment: Alignment, shape: tuple[int, ...]) -> nn.Module:
    """The module, refreshed from random examples where it is a counted one."""
    generator = torch.Generator().manual_seed(0)
    module = alignment.build(BuildContext(torch.zeros(2, *shape), generator=generator))
    if isinstance(module, StatisticalModule):
        values = torch.randn(200, *shape, generator=generator)
        labels = torch.randint(CLASSES, (200,), generator=generator)
        module.refresh(module.count(values, labels))
    return module.eval()


def drawn(batch: int) -> tuple[torch.Tensor, ...]:
    """One random input for every case."""
    return tuple(torch.randn(batch, *shape) for _, shape in CASES)


@pytest.mark.parametrize(("alignment", "shape"), [(Identity(), (7,)), *CASES], ids=str)
def test_export_with_any_batch(alignment: Alignment, shape: tuple[int, ...]) -> None:
    module = prepared(alignment, shape)
    dynamic = ({0: torch.export.Dim("batch")},)
    example = (torch.randn(3, *shape),)
    program = torch.export.export(module, example, dynamic_shapes=dynamic).module()
    for batch in (2, 17):
        values = torch.randn(batch, *shape)
        assert torch.equal(program(values), module(values))


class SideBySide(nn.Module):
    """All modules in one, since exporting costs far more than any of them."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pairs = zip(self.members, inputs, strict=True)
        return tuple(member(values) for member, values in pairs)


def test_onnx_runtime_agrees_on_every_alignment(tmp_path: Path) -> None:
    module = SideBySide([prepared(alignment, shape) for alignment, shape in CASES]).eval()
    batch_axis = (tuple({0: torch.export.Dim("batch")} for _ in CASES),)
    path = tmp_path / "alignments.onnx"
    program = torch.export.export(module, drawn(3), dynamic_shapes=batch_axis)
    written = torch.onnx.export(program, dynamo=True, verbose=False)
    assert written is not None
    written.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    for batch in (1, 17):
        inputs = drawn(batch)
        feeds = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        with torch.no_grad():
            expected = module(*inputs)
        for case, found, right in zip(CASES, session.run(None, feeds), expected, strict=True):
            assert torch.allclose(torch.from_numpy(found), right, rtol=1e-5, atol=1e-5), case
