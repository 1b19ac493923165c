"""Batch norm in program modules: what training does, and what evaluation does."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog import backends
from graphprog.errors import DataError, PassError
from tests.models.zoo import CASES, captured
from tests.support import oracle
from tests.support.comparisons import same


class Normed(nn.Module):
    """Two batch norms one behind the other, of which the second keeps a cumulative average."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, 6, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.second = nn.BatchNorm2d(6, momentum=None)
        self.drop = nn.Identity()
        self.last = nn.Conv2d(6, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.last(self.second(self.first(x)))


def normed() -> tuple[gp.ReprogrammedModel, nn.Module, Normed]:
    model, graph = captured("residual")
    torch.manual_seed(3)
    module = Normed()
    program = gp.Program([gp.Parametric(module, at="hidden[0]", name="normed")])
    return gp.compile(graph, program), model, copy.deepcopy(module)


def test_training_and_evaluation_are_those_of_eager_batch_norm() -> None:
    task, model, module = normed()

    def expected(x: torch.Tensor) -> torch.Tensor:
        return oracle.changed(model, {"blocks.0:out": module}, (x,), {})

    for mode in (False, True, True, False):
        task.train(mode)
        module.train(mode)
        (x,), _ = CASES["residual"].call(4 + mode)
        torch.testing.assert_close(task(x), expected(x))
        own, eager = task.program.normed.state_dict(), module.state_dict()
        assert own.keys() == eager.keys()
        for name, value in eager.items():
            torch.testing.assert_close(own[name], value)
    assert task.program.normed.second.num_batches_tracked == 2


def test_gradients_go_through_the_statistics_of_the_batch() -> None:
    task, model, module = normed()
    (x,), _ = CASES["residual"].call(4)
    task.train()
    module.train()
    task(x).square().sum().backward()
    oracle.changed(model, {"blocks.0:out": module}, (x,), {}).square().sum().backward()
    grown = dict(task.program.normed.named_parameters())
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(grown[name].grad, parameter.grad)


def test_statistics_are_saved_and_loaded(tmp_path: Path) -> None:
    task, _, module = normed()
    (x,), _ = CASES["residual"].call(4)
    task.train()
    task(x)
    task.eval()
    gp.save(task, tmp_path / "normed.safetensors")
    again = gp.load(tmp_path / "normed.safetensors", task.base, modules={"normed": module})
    assert same(again(x), task(x))
    assert again.program.normed.second.num_batches_tracked == 1


def test_the_alignment_sees_what_training_computes() -> None:
    _, graph = captured("residual")
    part = gp.Parametric(Normed(), at="hidden[0]", name="normed")
    task = gp.compile(graph, gp.Program([part], align=gp.LinearHead(classes=3)))
    (x,), _ = CASES["residual"].call(4)
    task.train()
    aligned, read = task.both(x)
    assert task.program.normed.second.num_batches_tracked == 1
    torch.testing.assert_close(task.alignment(read), aligned)
    evaluated, _ = task.eval().both(x)
    assert not torch.allclose(evaluated, aligned)


def test_only_what_evaluation_needs_is_run_and_exported(tmp_path: Path) -> None:
    task, _, _ = normed()
    (x,), _ = CASES["residual"].call(4)
    task.train()
    task(x)
    task.eval()
    names = [node.target for node in task.graph.module.graph.nodes]
    assert names.count(torch.ops.aten.batch_norm.default) == 3 + 2
    report = backends.onnx.export(task, tmp_path / "normed.onnx")
    assert report is not None


def test_a_batch_of_one_value_is_refused_and_leaves_the_statistics() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    graph = gp.capture(model, (torch.randn(3, 4),))
    task = gp.compile(graph, gp.Program([gp.Parametric(nn.BatchNorm1d(4), at="0:out")]))
    task.train()
    before = task.program_state()
    with pytest.raises(DataError, match=r"(?s)running_var.*two rows or more"):
        task(torch.randn(1, 4))
    assert same(before, task.program_state())
    task(torch.randn(3, 4))
    assert not same(before, task.program_state())


def test_a_layer_called_twice_is_refused() -> None:
    _, graph = captured("residual")
    layer = nn.BatchNorm2d(8)
    twice = gp.Parametric(nn.Sequential(layer, layer), at="hidden[0]")
    with pytest.raises(PassError, match="calls the same batch norm layer twice"):
        gp.compile(graph, gp.Program([twice]))


class NormedTokens(nn.Module):
    """Batch norm of token vectors [B, T, d]."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


def test_training_follows_when_tokens_are_inserted_in_front() -> None:
    _, graph = captured("transformer")
    _, kwargs = CASES["transformer"].call(4)
    norm = gp.Parametric(NormedTokens(), at="hidden[1]", name="normed")
    prompt = gp.Concatenative(at="tokens", length=3)
    before, after = (
        gp.compile(graph, gp.Program(parts)) for parts in ([norm, prompt], [prompt, norm])
    )
    before.load_program_state(after.program_state())
    for mode in (True, False):
        assert same(before.train(mode)(**kwargs), after.train(mode)(**kwargs))
        ours, theirs = before.program_state(), after.program_state()
        assert same(ours, {name: theirs[name] for name in ours})
    assert after.program.normed.norm.num_batches_tracked == 1
