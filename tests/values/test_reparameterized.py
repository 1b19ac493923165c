"""Entries that are computed from other parameters, and folded when they are saved."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.compiler.merge_reparameterization import merge_reparameterization
from graphprog.errors import GraphprogError
from graphprog.passes.verify import verify
from graphprog.spec.registry import format_spec, parse_spec
from graphprog.values import reparameterized as made
from graphprog.values.reparameterized import Reparameterized
from tests.models.scaled_embeddings import VOCABULARY, captured

LENGTH, WIDTH = 4, 16
TOKENS = gp.Learnable(gp.initializers.Tokens((1, 2, 3, 4)))
VALUES: dict[str, Reparameterized] = {
    "mlp": made.MLP(hidden=6),
    "mlp of three": made.MLP(hidden=6, layers=3, activation="relu", residual=True),
    "lstm": made.LSTM(hidden=5),
    "lstm of one": made.LSTM(hidden=5, layers=1, start=TOKENS),
    "low rank": made.LowRank(rank=2, start=TOKENS),
    "subspace": made.Subspace(size=7, start=TOKENS),
}


def task_of(value: Reparameterized, seed: int = 0, **options: Any) -> gp.ReprogrammedModel:
    part = gp.Concatenative(**{"at": "tokens", "length": LENGTH, "value": value, **options})
    return gp.compile(captured()[1], gp.Program([part]), seed)


def moved(task: gp.ReprogrammedModel) -> gp.ReprogrammedModel:
    """With other parameters than at the start."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in task.program.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * 0.3
    return task


@functools.cache
def ids_of(rows: int = 3, length: int = 6) -> Tensor:
    return torch.randint(0, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(1))


def rows_by_hand(value: Reparameterized, state: dict[str, Tensor]) -> Tensor:
    """The entries as the formula says."""
    own = {name.partition(".rows.")[2]: tensor for name, tensor in state.items()}
    start = own["start"]
    if isinstance(value, made.LowRank):
        return start * (own["columns"] @ own["rows"])
    if isinstance(value, made.Subspace):
        return start + (own["matrix"] @ own["numbers"]).view_as(start)
    x = start
    if isinstance(value, made.LSTM):
        lstm = nn.LSTM(WIDTH, value.hidden, value.layers, bidirectional=True, batch_first=True)
        layers = {k.removeprefix("lstm."): v for k, v in own.items() if k.startswith("lstm.")}
        lstm.load_state_dict(layers)
        x = lstm(x[None])[0][0]
    heads = sorted(name for name in own if name.startswith("head.") and name.endswith("weight"))
    for number, name in enumerate(heads):
        x = x @ own[name].T + own[name.replace("weight", "bias")]
        if number < len(heads) - 1:
            x = x.relu() if isinstance(value, made.LSTM) or value.activation == "relu" else x.tanh()  # type: ignore[attr-defined]
    return x + start if getattr(value, "residual", False) else x


@pytest.mark.parametrize("name", VALUES)
def test_entries_are_what_the_formula_says(name: str) -> None:
    task = moved(task_of(VALUES[name]))
    rows = rows_by_hand(VALUES[name], task.program_state()).detach()
    plain = gp.Concatenative(at="tokens", length=LENGTH, value=gp.Fixed(rows))
    reference = gp.compile(captured()[1], gp.Program([plain]))
    assert torch.allclose(task(ids_of()), reference(ids_of()), atol=1e-6)


@pytest.mark.parametrize("name", VALUES)
def test_saved_programs_have_plain_entries_and_compute_the_same_bits(
    name: str, tmp_path: Path
) -> None:
    task = moved(task_of(VALUES[name]))
    task.summary = {"epochs": 3}
    gp.save(task, tmp_path / "small.safetensors")
    loaded = gp.load(tmp_path / "small.safetensors", captured()[1])
    assert list(loaded.program_state()) == ["program.concatenative.value"]
    assert loaded.spec.manipulations == (
        gp.Concatenative(at="tokens", length=LENGTH, value=gp.Learnable()),
    )
    with torch.no_grad():
        assert torch.equal(loaded(ids_of()), task(ids_of()))
    # torch's LSTM rounds in another way where a gradient is wanted
    distance = (loaded(ids_of()) - task(ids_of())).abs().max()
    assert distance == 0 or (name.startswith("lstm") and distance < 1e-6)
    assert loaded.summary == {"epochs": 3}
    assert all(parameter.requires_grad for parameter in loaded.program.parameters())
    assert VALUES[name].kind in str(task.spec)  # the task itself is as it was


@pytest.mark.parametrize("name", VALUES)
def test_what_is_saved_to_resume_trains_on(name: str, tmp_path: Path) -> None:
    task = moved(task_of(VALUES[name]))
    gp.save(task, tmp_path / "whole.safetensors", resume=True)
    loaded = gp.load(tmp_path / "whole.safetensors", captured()[1])
    assert loaded.spec == task.spec
    state = task.program_state()
    assert all(torch.equal(state[name], tensor) for name, tensor in loaded.program_state().items())
    for one in (task, loaded):
        optimizer = torch.optim.SGD(one.program.parameters(), lr=0.1)
        one(ids_of()).square().sum().backward()
        optimizer.step()
    assert torch.equal(loaded(ids_of()), task(ids_of()))


@pytest.mark.parametrize("name", VALUES)
def test_every_parameter_is_trained(name: str) -> None:
    task = moved(task_of(VALUES[name]))
    task(ids_of()).square().sum().backward()
    for path, parameter in task.program.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.abs().sum() > 0, path


def test_they_are_computed_once_and_not_once_a_row() -> None:
    task = moved(task_of(made.MLP(hidden=6, layers=3, activation="relu")))
    alone = torch.cat([task(ids_of()[row : row + 1]) for row in range(3)])
    assert torch.allclose(task(ids_of()), alone, atol=1e-6)
    shapes = [
        tuple(node.meta["val"].shape)
        for node in task.graph.code.nodes
        if node.meta.get("graphprog") and "linear" in node.name
    ]
    assert shapes == [(LENGTH, 6), (LENGTH, 6), (LENGTH, WIDTH)]


@functools.cache
def attending() -> gp.Graph:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(VOCABULARY, WIDTH)
            self.head = nn.Linear(WIDTH, VOCABULARY)

        def forward(self, ids: Tensor) -> Tensor:
            x = self.table(ids).unflatten(2, (2, 8)).transpose(1, 2)
            y = nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)
            found: Tensor = self.head(y.transpose(1, 2).flatten(2))
            return found

    torch.manual_seed(0)
    model = Attention().eval().to(torch.bfloat16)
    return gp.capture(model, (ids_of(),), dynamic_axes={"ids": {0: "b", 1: "s"}})


@pytest.mark.parametrize(
    "part",
    [
        *(gp.Concatenative(at="table:out", length=3, value=value) for value in VALUES.values()),
        gp.Prefix(length=3, value=made.MLP(hidden=4)),
        gp.Prefix(length=3, gates="each", value=made.LSTM(hidden=4)),
    ],
    ids=lambda part: f"{part.kind} {part.value.kind} {part.value.start.init}"[:40],
)
def test_merging_rewrites_the_graph_into_what_plain_entries_compile_to(
    part: gp.Manipulation,
) -> None:
    task = moved(gp.compile(attending(), gp.Program([part, gp.Additive(at="head:out")])))
    before, state = task.graph.text, task.program_state()
    merged = merge_reparameterization(task)
    anew = gp.compile(attending(), merged.spec)
    assert not merged.graph.diff(anew.graph)
    assert merged.pipeline == anew.pipeline
    assert list(merged.program_state()) == list(anew.program_state())
    verify(merged.graph, attending())
    with torch.no_grad():
        assert torch.equal(merged(ids_of()), task(ids_of()))
    assert task.graph.text == before
    assert all(torch.equal(state[name], value) for name, value in task.program_state().items())


def test_where_they_start() -> None:
    table = captured()[0].table.weight[1:5]
    low = task_of(VALUES["low rank"])
    entries = merge_reparameterization(low).program_state()["program.concatenative.value"]
    assert torch.allclose(entries, table, rtol=0.2)
    assert not torch.equal(entries, table)
    subspace = merge_reparameterization(task_of(VALUES["subspace"])).program_state()[
        "program.concatenative.value"
    ]
    assert torch.equal(subspace, table)
    first, again = (task_of(VALUES["lstm"], seed).program_state() for seed in (3, 3))
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = task_of(VALUES["lstm"], 4).program_state()
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_along_another_axis_and_at_several_places(tmp_path: Path) -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cut = nn.Conv2d(3, 8, 4, 4)

        def forward(self, images: Tensor) -> Tensor:
            return self.cut(images).tanh().mean((2, 3))

    torch.manual_seed(0)
    images = torch.rand(2, 3, 12, 12)
    graph = gp.capture(Rows().eval(), (images,))
    parts = [
        gp.Concatenative(at="cut:out", axis=2, length=2, value=made.MLP(hidden=4)),
        gp.Concatenative(at="input", axis=3, length=4, value=made.LowRank(), name="columns"),
    ]
    task = moved(gp.compile(graph, gp.Program(parts)))
    gp.save(task, tmp_path / "p.safetensors")
    loaded = gp.load(tmp_path / "p.safetensors", graph)
    shapes = {name: tuple(tensor.shape) for name, tensor in loaded.program_state().items()}
    assert shapes == {
        "program.concatenative.value": (8, 2, 4),
        "program.columns.value": (3, 12, 4),
    }
    assert torch.equal(loaded(images), task(images))


def test_deep_prompts_fold_at_every_depth(tmp_path: Path) -> None:
    parts = [
        gp.Concatenative(at="table:out", length=2, value=made.LowRank(start=gp.Learnable("ones"))),
        gp.Replacement(at="mi*:in", length=2, value=made.MLP(hidden=4)),
    ]
    task = moved(gp.compile(captured()[1], gp.Program(parts)))
    gp.save(task, tmp_path / "p.safetensors")
    loaded = gp.load(tmp_path / "p.safetensors", captured()[1])
    assert {name: tuple(value.shape) for name, value in loaded.program_state().items()} == {
        "program.concatenative.value": (2, WIDTH),
        "program.replacement_0.entries.value": (2, WIDTH),
    }
    with torch.no_grad():
        assert torch.equal(loaded(ids_of()), task(ids_of()))


def test_checkpoints_of_a_run_keep_what_the_entries_come_from(tmp_path: Path) -> None:
    class Labels(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, ids: Tensor) -> Tensor:
            return self.inner(ids).mean(1)

    graph = gp.capture(Labels(captured()[0]), (ids_of(),), dynamic_axes={"ids": {0: "b", 1: "s"}})
    part = gp.Concatenative(at="tokens", length=2, value=made.MLP(hidden=3))
    data = (ids_of(12), torch.arange(12) % 3)

    def run(epochs: int, folder: Path | None) -> dict[str, Tensor]:
        task = gp.compile(graph, gp.Program([part]))
        options = {"batch_size": 4, "progress": False, "lr": 0.1, "schedule": "constant"}
        gp.fit(task, data, epochs=epochs, checkpoint=folder, **options)
        return task.program_state()

    once = run(2, tmp_path / "run")
    again = run(2, tmp_path / "run")
    assert any("head" in name for name in once)
    assert all(torch.equal(once[name], again[name]) for name in once)


@pytest.mark.parametrize("program", ["folded", "overridable"])
def test_onnx_files_hold_plain_entries(program: Any, tmp_path: Path) -> None:
    task = moved(task_of(VALUES["lstm"]))
    report = gp.backends.onnx.export(task, tmp_path / "p.onnx", program=program)
    assert report.passed
    session = gp.backends.onnxruntime.Session(tmp_path / "p.onnx", providers="cpu")
    ids = ids_of(5, 9)
    (found,) = session.evaluate((ids,))
    assert np.abs(np.asarray(found) - task(ids).detach().numpy()).max() < 1e-5


@pytest.mark.parametrize("name", VALUES)
def test_they_travel_as_text(name: str) -> None:
    part = gp.Concatenative(at="tokens", length=LENGTH, value=VALUES[name])
    assert parse_spec(format_spec(part)) == part


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: made.MLP(hidden=0), "hidden must be an integer of at least 1"),
        (lambda: made.MLP(hidden=2, layers=1), "layers must be at least 2, not 1"),
        (lambda: made.MLP(hidden=2, activation="sine"), "activation must be one of"),
        (lambda: made.LSTM(hidden=2, layers=0), "layers must be an integer of at least 1"),
        (lambda: made.LowRank(rank=0), "rank must be an integer of at least 1"),
        (lambda: made.Subspace(size=0), "size must be an integer of at least 1"),
        (
            lambda: gp.Concatenative(value=torch.ones(2)),
            "value of concatenative cannot be a Tensor",
        ),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be(make: Any, said: str) -> None:
    with pytest.raises(GraphprogError, match=said):
        make()
