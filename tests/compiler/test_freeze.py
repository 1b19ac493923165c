"""A frozen task computes what the task does, and has nothing left to train."""

from __future__ import annotations

from pathlib import Path

import onnx_ir
import pytest
import torch

import graphprog as gp
from graphprog.errors import BackendError, ProgramError
from graphprog.ir.printing import operator_name
from tests.models.programs import PROGRAMS
from tests.models.zoo import captured


def moved(task: gp.ReprogrammedModel) -> None:
    """Give the program other values than it starts with."""
    with torch.no_grad():
        for number, value in enumerate(task.program.parameters()):
            value += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(number))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_frozen_program_is_exact_or_rounded(name: str) -> None:
    task = gp.compile(captured("residual")[1], PROGRAMS[name])
    moved(task)
    before = task.source_hash()
    (x,) = task.input_example(3)
    exact, rounded = gp.freeze(task), gp.freeze(task, exact=False)
    with torch.no_grad():
        expected = task(x)
        assert exact(x).equal(expected)
        torch.testing.assert_close(rounded(x), expected, rtol=1e-4, atol=1e-4)
    assert task.source_hash() == before
    assert not exact.insertions
    assert not rounded.insertions
    assert not any(p.requires_grad for p in exact.weights.parameters())
    assert "tanh" not in [operator_name(node) for node in exact.code.nodes]
    moved(task)
    assert exact(x).equal(expected), "later training does not reach it"


def test_a_frozen_task_is_a_source() -> None:
    task = gp.compile(captured("residual")[1], PROGRAMS["additive"])
    frozen = gp.freeze(task)
    again = gp.compile(frozen, gp.Program(align=gp.FixedMap(3)))
    (x,) = task.input_example(3)
    assert again(x).equal(task(x)[:, :3])
    assert gp.freeze(again)(x).equal(again(x))


def test_labels_are_those_of_the_program() -> None:
    contract = gp.Contract(labels=("cat", "dog"))
    task = gp.compile(captured("residual")[1], gp.Program(align=gp.FixedMap(2), contract=contract))
    assert gp.freeze(task).hints["labels"] == ("cat", "dog")


def test_a_graph_has_nothing_to_freeze() -> None:
    with pytest.raises(ProgramError, match="a compiled task is needed, not a Graph"):
        gp.freeze(captured("residual")[1])  # type: ignore[arg-type]


def test_files_fold_what_only_rounding_separates(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = (torch.nn.Linear(6, 20), torch.nn.ReLU(), torch.nn.Linear(20, 15))
    graph = gp.capture(torch.nn.Sequential(*layers).eval(), (torch.rand(2, 6),))
    program = gp.Program([gp.Additive()], align=gp.LinearHead(3))
    task = gp.compile(graph, program)
    moved(task)
    counts = []
    for exact in (True, False):
        path = tmp_path / f"{exact}.onnx"
        assert gp.backends.onnx.export(task, path, exact=exact).max_absolute < 1e-5
        counts.append(len(onnx_ir.load(path).graph))
    assert counts[1] < counts[0]
    with pytest.raises(BackendError, match='which program="overridable" keeps apart'):
        gp.backends.onnx.export(task, tmp_path / "x.onnx", program="overridable", exact=False)
