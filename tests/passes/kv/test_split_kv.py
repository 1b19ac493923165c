"""Attention over a memory and over tokens apart: the same numbers, and no copies at run time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

import graphprog as gp
from graphprog.analysis.attention import attentions
from graphprog.passes import SplitKV
from tests.models.prefix_models import DECODERS, decoder, presence, some_ids

LENGTH = 5
_QUICK = ("gpt2", "windows", "opt")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in _QUICK else pytest.mark.slow) for n in DECODERS]
)
def test_split_attention_gives_what_joined_attention_gives(name: str) -> None:
    """With masks of truth values and of numbers, windows, and heads that are repeated."""
    _, graph = decoder(name)
    part = gp.Prefix(length=LENGTH, value=gp.Learnable("normal", 0.5))
    task = gp.compile(graph, gp.Program([part]))
    split = SplitKV()(task.graph)
    assert not attentions(split.code)
    for batch, length in ((3, 12), (1, 2)):
        given = {"input_ids": some_ids(batch, length), "attention_mask": presence(batch, length)}
        flat = [given[spec.name] for spec in task.inputs]
        with torch.no_grad():
            wanted, found = task.graph.run(flat)[0], split.run(flat)[0]
        shown = given["attention_mask"].bool()  # what is padding means nothing
        assert torch.allclose(wanted[shown], found[shown], atol=2e-6)


class _Scaled(nn.Module):
    """Attention in both directions, without a mask and with a scale of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, S, 8]."""
        q = x.unflatten(-1, (2, 4)).transpose(1, 2)
        y = functional.scaled_dot_product_attention(q, q.roll(1, -1), q, scale=0.9)
        return x + y.transpose(1, 2).flatten(2)


def test_a_scale_and_no_mask_are_kept() -> None:
    """And attention that reads no memory stays one operation."""
    axes = {"input": {0: "batch", 1: "sequence"}}
    graph = gp.capture(nn.Sequential(_Scaled(), _Scaled()).eval(), (torch.rand(2, 5, 8),), {}, axes)
    part = gp.Prefix(at="attention[1]", length=3, value=gp.Learnable("normal", 1.0))
    task = gp.compile(graph, gp.Program([part]))
    split = SplitKV()(task.graph)
    assert len(attentions(split.code)) == 1
    x = torch.rand(3, 7, 8)
    assert torch.allclose(task.graph.run([x])[0], split.run([x])[0], atol=1e-6)


@pytest.mark.slow
def test_a_remembered_text_is_constants_in_a_file(tmp_path: Path) -> None:
    """Whatever its size: an operation of the program alone is none of the file."""
    _, graph = decoder("gpt2")
    text = tuple(some_ids(1, 40)[0].tolist())
    task = gp.compile(graph, gp.Program([gp.Prefix(value=gp.TextPrefix(text))]))
    gp.backends.onnx.export(task, tmp_path / "folded.onnx")
    model = onnx.load(tmp_path / "folded.onnx")
    made = {output: node for node in model.graph.node for output in node.output}
    read = Counter(
        node.op_type
        for node in model.graph.node
        if node.name.startswith("program.")
        and node.input
        and not any(
            name in made or name in {i.name for i in model.graph.input} for name in node.input
        )
    )
    assert not read  # what reads constants alone has been computed


def test_large_constants_of_the_program_are_folded(tmp_path: Path) -> None:
    """Also above the size up to which an exporter folds by itself."""
    axes = {"input": {0: "batch", 1: "sequence"}}
    graph = gp.capture(nn.Sequential(_Scaled()).eval(), (torch.rand(2, 5, 8),), {}, axes)
    part = gp.Prefix(length=70_000, value=gp.Learnable("normal", 1.0))
    task = gp.compile(graph, gp.Program([part]))
    gp.backends.onnx.export(task, tmp_path / "large.onnx")
    model = onnx.load(tmp_path / "large.onnx")
    sizes = [tuple(tensor.dims) for tensor in model.graph.initializer]
    assert (2, 4, 70_000) in sizes  # keys, turned already
    assert (2, 70_000, 4) in sizes  # values
