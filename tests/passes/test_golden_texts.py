"""Graphs before and after passes, as texts that are kept in tests/text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import graphprog as gp
from graphprog.compiler.compile import lower
from graphprog.passes import EraseProgram
from graphprog.passes.insert.insert import Insert
from tests.conftest import Golden
from tests.models.programs import PROGRAMS
from tests.models.zoo import CASES, captured
from tests.support.golden_texts import TEXTS, GoldenText

FILES = sorted(TEXTS.glob("*/*.txt"))
KEPT = {
    "additive": "insert/additive",
    "steering": "insert/steering",
    "resize-pad": "replace-input/resize-pad",
    "align": "align/features",
}
"""Files with the passes of each program."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_graph_before_and_after(path: Path, golden: Golden) -> None:
    golden(path, GoldenText.read(path).render())


def test_interfaces_of_a_graph(golden: Golden) -> None:
    golden(TEXTS / "interfaces.txt", f"{captured('residual')[1].interfaces()}\n")


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=lambda p: p.name)
def test_a_pass_that_may_refuse_has_a_refusal_beside_it(folder: Path) -> None:
    if folder.name in ("capture", "insert", "replace-input"):
        return  # their refusals are texts of tests beside them
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("*.txt")]
    assert any("\n\nafter:\n" in text for text in texts)
    assert any("\n\nrefused:\n" in text or "\n\nunchanged:\n" in text for text in texts)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_becomes_these_passes(name: str) -> None:
    kept = GoldenText.read(TEXTS / f"{KEPT[name]}.txt")
    assert str(lower(PROGRAMS[name])) == str(kept.passes)


@pytest.mark.parametrize("name", PROGRAMS)
def test_erasing_gives_the_source_back(name: str) -> None:
    _, graph = captured("residual")
    erased = EraseProgram()(lower(PROGRAMS[name])(graph))
    assert graph.diff(erased) == ""
    assert graph.text == erased.text
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
