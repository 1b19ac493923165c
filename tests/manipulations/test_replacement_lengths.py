"""Entries replaced at any place of a sequence of any length."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.errors import BackendError, DataError
from graphprog.ir.graph import Graph

WIDTH, COUNT = 8, 2


class Text(nn.Module):
    """Two blocks over a text, in which every token sees the ones before."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, WIDTH)
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))

    def forward(self, ids: Tensor) -> Tensor:
        return self.after(self.first(self.words(ids)))

    def first(self, x: Tensor) -> Tensor:
        return x + self.blocks[0](x).cumsum(1).tanh()

    def after(self, x: Tensor) -> Tensor:
        return (x + self.blocks[1](x).cumsum(1).tanh()).mean(1)


@cache
def text() -> tuple[Text, Graph]:
    torch.manual_seed(0)
    model = Text().eval().requires_grad_(False)
    axes = {"ids": {0: "batch", 1: "sequence"}}
    return model, gp.capture(model, (torch.ones(2, 6).long(),), dynamic_axes=axes)


def replaced(x: Tensor, new: Tensor, offset: int) -> Tensor:
    rows = list(x.unbind(1))
    first = len(rows) - COUNT if offset == -1 else offset
    rows[first : first + COUNT] = [row.expand(len(x), -1) for row in new]
    return torch.stack(rows, 1)


@pytest.mark.parametrize("offset", [0, 3, -1])
def test_entries_are_replaced_at_any_length(offset: int) -> None:
    model, graph = text()
    new = torch.randn(COUNT, WIDTH)
    part = gp.Replacement(at="tokens", length=COUNT, offset=offset, value=gp.Fixed(new))
    task = gp.compile(graph, gp.Program([part]))
    for length in (5, 6, 9):
        ids = torch.randint(20, (3, length))
        expected = model.after(model.first(replaced(model.words(ids), new, offset)))
        assert torch.equal(task(ids), expected)
        with task.disabled():
            assert torch.equal(task(ids), model(ids))


def test_slots_in_the_middle_get_new_entries_at_every_depth() -> None:
    model, graph = text()
    one, two = torch.randn(COUNT, WIDTH), torch.randn(COUNT, WIDTH)
    parts = [
        gp.Concatenative(at="tokens", length=COUNT, offset=3, value=gp.Fixed(one)),
        gp.Replacement(at="blocks.1:in", length=COUNT, offset=3, value=gp.Fixed(two)),
    ]
    task = gp.compile(graph, gp.Program(parts))
    for length in (4, 9):
        ids = torch.randint(20, (3, length))
        words = model.words(ids)
        x = model.first(torch.cat([words[:, :3], one.expand(3, -1, -1), words[:, 3:]], 1))
        y = x + model.blocks[1](replaced(x, two, 3)).cumsum(1).tanh()
        assert torch.equal(task(ids), y.mean(1))


def test_the_replaced_entries_learn() -> None:
    _, graph = text()
    task = gp.compile(graph, gp.Program([gp.Replacement(at="tokens", length=COUNT, offset=3)]))
    task(torch.ones(2, 7).long()).square().sum().backward()
    (learned,) = task.program.parameters()
    assert learned.grad.abs().min() > 0


@pytest.mark.parametrize(("offset", "most"), [(3, 4), (-1, 1)])
def test_inputs_without_the_replaced_entries_are_refused(offset: int, most: int) -> None:
    _, graph = text()
    task = gp.compile(graph, gp.Program([gp.Replacement(at="tokens", length=2, offset=offset)]))
    assert task(torch.ones(2, most + 1).long()).shape == (2, WIDTH)
    with pytest.raises(DataError, match=f"length {most} on axis S.*needs {most + 1}"):
        task(torch.ones(2, most).long())


def test_entries_inserted_before_count() -> None:
    _, graph = text()
    slots = gp.Concatenative(at="tokens", length=3)
    task = gp.compile(graph, gp.Program([slots, gp.Replacement(at="blocks.1:in", length=4)]))
    assert task(torch.ones(2, 1).long()).shape == (2, WIDTH)


def test_onnx_runtime_does_not_count_places_from_the_end(tmp_path: Path) -> None:
    _, graph = text()
    task = gp.compile(graph, gp.Program([gp.Replacement(at="tokens", length=4, offset=-1)]))
    gp.backends.onnx.export(task, tmp_path / "task.onnx")
    session = gp.backends.onnxruntime.Session(tmp_path / "task.onnx", providers="cpu")
    assert session.run(torch.ones(2, 4).long()).shape == (2, WIDTH)
    with pytest.raises(BackendError, match="invalid indice"):
        session.run(torch.ones(2, 3).long())
