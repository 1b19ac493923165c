"""Parametric parts run in ONNX Runtime as they do in PyTorch, at other batch sizes too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import graphprog as gp
from tests.models.zoo import CASES, captured

pytest.importorskip("onnxruntime")


def gpt2_parts() -> list[gp.Manipulation]:
    layer = "transformer.h.*.attn.c_attn"
    return [
        *gp.methods.ia3(f"{layer}:out", "", "transformer.h.*.mlp.c_proj:in"),
        gp.AdaptionPrompt(
            at="transformer.h.*.attn.c_proj:in",
            queries=f"{layer}:out",
            keys=(f"source.{layer}.weight", f"source.{layer}.bias"),
            transposed=True,
            heads=2,
        ),
        gp.Adapter(at="transformer.h.*.mlp:out", beside="transformer.h.*.mlp:in", width=4),
        gp.Projection(at="hidden[0:2]", bias=True),
        gp.Mixture(at="embedding"),
        gp.Parametric(nn.Sequential(nn.Linear(32, 32), nn.GELU()), at="hidden[2]"),
    ]


PARTS = {
    "gpt2": gpt2_parts,
    "residual": lambda: [gp.SampleMask(patch=4), gp.Projection(at="features")],
    "transformer": lambda: [gp.VocabularyMap(words=9, weighting="softmax", top=3)],
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("gpt2", marks=pytest.mark.slow),
        *(
            pytest.param(name, marks=pytest.mark.xdist_group(name))
            for name in PARTS
            if name != "gpt2"
        ),
    ],
)
def test_parity(name: str, tmp_path: Path) -> None:
    _, graph = captured(name)
    task = gp.compile(graph, gp.Program(PARTS[name]()))
    state = task.program_state()
    for key, value in state.items():
        if value.is_floating_point() and "running" not in key:
            value.normal_(std=0.1)
    task.load_program_state(state)
    args, kwargs = CASES[name].call(3)  # masks at random could leave nothing to attend to
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    if name == "transformer":
        tensors[0] = tensors[0] % 9
    report = gp.backends.onnx.export(task, tmp_path / "task.onnx", inputs=tuple(tensors))
    assert report.passed
