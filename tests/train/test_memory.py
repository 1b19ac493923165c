"""``memory="low"``: stages are computed again in the backward pass, to the same bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

import graphprog as gp
from graphprog.errors import TrainingError
from graphprog.ir.memory.peak import PeakMemory
from graphprog.ir.memory.recompute import low_memory
from graphprog.ir.memory.stages import plan_of

WIDTH, LENGTH = 32, 24
IDS = torch.randint(50, (8, LENGTH), generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        layers = (nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
        self.layers = nn.Sequential(nn.LayerNorm(WIDTH), *layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = (part[:, None] for part in self.qkv(self.norm(x)).chunk(3, -1))
        mixed = functional.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.out(mixed[:, 0])
        return x + self.layers(x)


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(12))
        self.head = nn.Linear(WIDTH, 50)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x)[:, -1]


@pytest.fixture(scope="module")
def graph() -> gp.Graph:
    torch.manual_seed(0)
    model = Language().eval().requires_grad_(False)
    return gp.capture(model, (IDS,), dynamic_axes={"ids": {0: "batch", 1: "length"}})


class Noisy(nn.Module):
    """Adds learned noise that is drawn anew in each run."""

    def __init__(self) -> None:
        super().__init__()
        self.size = nn.Parameter(torch.full((WIDTH,), 0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.size * torch.randn_like(x)


def soft_prompt() -> gp.Program:
    return gp.Program([gp.Concatenative(at="table:out", length=4, value=gp.Learnable("normal"))])


def prefix() -> gp.Program:
    return gp.Program([gp.Prefix(length=4, value=gp.Learnable("normal"))])


def noise() -> gp.Program:
    return gp.Program([gp.Parametric(Noisy(), at=f"blocks.{n}:out") for n in (1, 5, 9)])


def gradients(task: gp.ReprogrammedModel, low: bool) -> tuple[list[torch.Tensor], int]:
    """Gradients of a step, and the largest memory of it."""
    found = []
    for _ in range(2):  # stages are made in the first
        task.zero_grad()
        torch.manual_seed(3)
        with low_memory(low), PeakMemory() as memory:
            functional.cross_entropy(task(IDS), IDS[:, 0]).backward()
        found = [one.grad.clone() for one in task.program.parameters() if one.grad is not None]
    return found, memory.peak


@pytest.mark.parametrize("program", [soft_prompt, prefix, noise])
def test_gradients_are_the_same_bits_in_less_memory(
    graph: gp.Graph, program: Callable[[], gp.Program]
) -> None:
    task = gp.compile(graph, program()).train()
    plain, before = gradients(task, low=False)
    saved, after = gradients(task, low=True)
    assert plain
    assert all(torch.equal(one, two) for one, two in zip(plain, saved, strict=True))
    assert all(one.abs().sum() > 0 for one in plain)
    assert after < 0.45 * before


def test_sources_in_few_bits_are_cut_into_stages_too(graph: gp.Graph) -> None:
    task = gp.compile(gp.optimize(graph, weights="int8"), prefix()).train()
    plain, before = gradients(task, low=False)
    saved, after = gradients(task, low=True)
    assert all(torch.equal(one, two) for one, two in zip(plain, saved, strict=True))
    assert after < 0.6 * before


def test_fit_gives_the_same_program_and_reports_memory(graph: gp.Graph) -> None:
    found, notes = [], []
    for memory in ("normal", "low"):
        task = gp.compile(graph, prefix())
        history = gp.fit(
            task, (IDS, IDS[:, 0]), epochs=2, batch_size=4, memory=memory, progress=False
        )
        found.append(task.program_state())
        notes.append([text for text in history.notes if text.startswith("memory=")])
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert not notes[0]
    (note,) = notes[1]
    assert "at most" in note
    assert "stages keep" in note


def test_the_plan_covers_all_operations_once_in_order(graph: gp.Graph) -> None:
    task = gp.compile(graph, soft_prompt())
    plan = plan_of(task.graph.code, {"program.concatenative.value"})
    assert plan is not None
    every = [node for stage in plan.stages for node in stage]
    assert set(every) == {node for node in task.graph.code.nodes if node.op == "call_function"}
    assert len(every) == len(set(every))
    seen: set[object] = set()
    for node in every:
        assert all(part in seen for part in node.all_input_nodes if part.op == "call_function")
        seen.add(node)
    assert plan.kept + plan.largest < 0.4 * plan.whole


def test_where_no_cut_saves_anything_the_note_says_so() -> None:
    head = gp.capture(nn.Linear(6, 5).eval(), (torch.rand(2, 6),))
    task = gp.compile(head, gp.Program([gp.Additive()]))
    data = (torch.rand(8, 6), torch.randint(5, (8,)))
    history = gp.fit(task, data, epochs=1, memory="low", progress=False)
    assert any("every value is kept: no cut saves any" in note for note in history.notes)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


def test_a_program_that_updates_buffers_keeps_its_values() -> None:
    layers = [layer for _ in range(4) for layer in (nn.Linear(6, 6), nn.Tanh())]
    graph = gp.capture(nn.Sequential(*layers).eval(), (torch.rand(2, 6),))
    task = gp.compile(graph, gp.Program([gp.Parametric(Normed(), at="1:out")]))
    data = (torch.rand(8, 6), torch.randint(6, (8,)))
    history = gp.fit(task, data, epochs=1, memory="low", progress=False)
    assert any("updates buffers" in note for note in history.notes)


def test_unknown_values_and_other_engines_are_refused(graph: gp.Graph) -> None:
    task, data = gp.compile(graph, prefix()), (IDS, IDS[:, 0])
    with pytest.raises(TrainingError, match="memory must be one of normal, low, not 'tiny'"):
        gp.fit(task, data, memory="tiny")
    with pytest.raises(TrainingError, match=r"(?s)memory='low' is not possible with engine="):
        gp.fit(task, data, memory="low", engine="onnxruntime")


def test_peak_memory_counts_what_lives_at_once() -> None:
    x = torch.rand(1000, requires_grad=True)
    with PeakMemory() as memory:
        doubled = x * 2
        risen = doubled.exp()  # kept for its gradient
        del doubled
        risen.sin().sum().backward()
    assert memory.peak == pytest.approx(3 * 4000, abs=8)
