"""Passes that compute nothing twice, each beside the graph without it, in families of the zoo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("timm")
pytest.importorskip("transformers")
pytest.importorskip("torch_geometric")

import torch
from torch import Tensor

import graphprog as gp
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import GraphprogError
from graphprog.ir.graph import Graph
from graphprog.train.reuse.stages import Stages
from sweep.families.registry import family_named
from sweep.subject import Subject, captured

FAMILIES = (
    *("timm/convnext", "timm/resnet", "timm/swin_transformer", "timm/vision_transformer"),
    *("torch_geometric/GCN", "transformers/bert", "transformers/clip", "transformers/gpt2"),
    *("transformers/llama", "transformers/t5"),
)
TOLERANCE = 1e-4
"""Share of the largest magnitude; sums of float32 in another order."""


@pytest.fixture(scope="module", params=FAMILIES)
def subject(request: pytest.FixtureRequest) -> Subject:
    return captured(family_named(request.param).build())


def prompts(subject: Subject) -> list[list[Any]]:
    """Programs, of which a family takes the first that it can."""
    learned = gp.Learnable("normal", 0.1)
    return [
        [gp.Concatenative(at="tokens", length=3, value=learned)],
        [gp.Concatenative(at="embedding", offset=1, length=3, value=learned)],
        [gp.Additive(value=learned)],
        *([gp.Additive(at=name, value=learned)] for name in subject.blocks()[:1]),
    ]


def task_of(subject: Subject) -> ReprogrammedModel:
    torch.manual_seed(0)
    for parts in prompts(subject):
        for align in (gp.LastToken(), gp.FixedMap(classes=2), gp.Identity()):
            try:
                return gp.compile(subject.graph, gp.Program(parts, align=align))
            except GraphprogError:
                continue
    raise AssertionError("no program fits")


def inputs_of(subject: Subject) -> list[Tensor]:
    return list(subject.graph.call_spec.bind((), subject.arguments()))


def floats(values: Sequence[Any]) -> list[Tensor]:
    return [one for one in values if isinstance(one, Tensor) and one.is_floating_point()]


def trained(task: ReprogrammedModel, values: Sequence[Any]) -> list[Tensor]:
    """Results, and the gradients of the program."""
    found = floats(values)
    leaves = [one for one in task.program.parameters() if one.requires_grad]
    total = sum((one * one.detach().cos()).sum() for one in found if one.requires_grad)
    gradients = torch.autograd.grad(total, leaves, allow_unused=True)
    return [*found, *(torch.zeros(1) if one is None else one for one in gradients)]


def compare(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        largest = float(other.detach().abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one, other, rtol=0, atol=TOLERANCE * max(largest, 1e-6))


@pytest.mark.slow
def test_training_with_passes_is_training_without_them(subject: Subject) -> None:
    source = subject.graph.fingerprint
    task, inputs = task_of(subject), inputs_of(subject)
    wanted = trained(task, task.graph.run(inputs))
    compare(wanted, trained(task, task.graph.run(inputs)))
    fewer = gp.passes.OnlyWhatIsRead()(task.graph)
    for graph in (fewer, gp.passes.OncePerStep()(task.graph), gp.passes.OncePerStep()(fewer)):
        compare(trained(task, graph.run(inputs)), wanted)
    stages = Stages.of(task.graph)
    if isinstance(stages, Stages):
        values, _ = stages.rest(stages.first(inputs), read=False, training=True)
        flat = torch.utils._pytree.tree_leaves(values)
        compare(trained(task, flat), wanted)
    assert subject.graph.fingerprint == source


@pytest.mark.slow
def test_inference_with_passes_is_inference_without_them(subject: Subject) -> None:
    source = subject.graph.fingerprint
    task, inputs = task_of(subject), inputs_of(subject)
    with torch.no_grad():
        whole, wanted = floats(subject.graph.run(inputs)), floats(task.graph.run(inputs))
        for one, other in zip(
            floats(gp.passes.FoldConstants()(subject.graph).run(inputs)), whole, strict=True
        ):
            assert torch.equal(one, other)
        frozen: Graph = gp.freeze(task)
        for one, other in zip(floats(frozen.run(inputs)), wanted, strict=True):
            assert torch.equal(one, other)
        for graph in (
            gp.passes.FoldAdditive()(frozen),
            gp.passes.MergeLinears()(frozen),
            gp.freeze(task, exact=False),
        ):
            compare(floats(graph.run(inputs)), wanted)
    assert subject.graph.fingerprint == source
