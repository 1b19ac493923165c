from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import graphprog as gp
from graphprog.compiler.compile import lower
from graphprog.passes import EraseProgram
from graphprog.passes.insert.insert import Insert
from tests.models.zoo import CASES, captured

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


def golden(name: str, text: str) -> None:
    """Compare with a kept text; GRAPHPROG_UPDATE_GOLDEN=1 keeps the new one instead."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("GRAPHPROG_UPDATE_GOLDEN") == "1":
        path.write_text(text + "\n", encoding="utf-8")
    assert text + "\n" == path.read_text(encoding="utf-8")


PROGRAMS = {
    "additive": gp.Program(
        [gp.Additive(mask=gp.masks.border(inner=8), squash="tanh", clip=(-1.0, 1.0))]
    ),
    "steering": gp.Program([gp.Additive(at="hidden[*]", value=gp.Learnable(shape=(8, 1, 1)))]),
    "place": gp.Program(
        [gp.ResizePad(shape=(1, 5, 5), size=9), gp.Additive(mask=gp.masks.border(inner=9))],
        contract=gp.Contract("unit", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
    ),
    "align": gp.Program([gp.Additive()], align=gp.LinearHead(4, at="features")),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_text_of_a_rewritten_graph(name: str) -> None:
    _, graph = captured("residual")
    pipeline = lower(PROGRAMS[name])
    rewritten = pipeline(graph)
    golden(name, f"{pipeline}\n\n{rewritten}\n\n{graph.diff(rewritten)}")


def test_text_of_captured_graphs() -> None:
    golden("captured", "\n\n".join(str(captured(name)[1]) for name in ("residual", "transformer")))
    golden("interfaces", str(captured("residual")[1].interfaces()))


@pytest.mark.parametrize("name", PROGRAMS)
def test_erasing_gives_the_source_back(name: str) -> None:
    _, graph = captured("residual")
    erased = EraseProgram()(lower(PROGRAMS[name])(graph))
    assert graph.diff(erased) == ""
    assert not erased.insertions
    (x,), _ = CASES["residual"].call(3)
    with torch.no_grad():
        assert torch.equal(erased(x), graph(x))


def test_a_diff_shows_what_changed_and_nothing_else() -> None:
    _, graph = captured("residual")
    assert graph.diff(graph) == ""
    rewritten = Insert(gp.Additive(at="features"))(graph)
    lines = [line for line in graph.diff(rewritten).splitlines()[2:] if line[0] in "+-"]
    assert [line[0] for line in lines] == ["-", "+", "+"], "one value, and the layer that reads it"
    assert "%additive.0 = add.Tensor(%13, program.additive.value)" in lines[1]
