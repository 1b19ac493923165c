"""Files of format version 1, of every kind of program, load and give what they gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import graphprog as gp
from graphprog.io.artifact import read
from graphprog.passes.base import Pass
from graphprog.spec import registry
from tests.support import version_1 as kept

pytestmark = pytest.mark.xdist_group("version-1")


def _document(path: Path) -> dict[str, Any]:
    _, document = read(path)
    document["source"].pop("torch")
    return document


@pytest.mark.parametrize("name", sorted(kept.PROGRAMS))
def test_a_kept_file_gives_what_it_gave_and_is_written_as_it_was(name: str, tmp_path: Path) -> None:
    task = kept.load(name)
    wanted = torch.tensor(json.loads(kept.OUTPUTS.read_text(encoding="utf-8"))[name])
    found = kept.outputs_of(name, task)
    torch.testing.assert_close(found.double(), wanted.double(), rtol=1e-5, atol=1e-5)
    gp.save(task, tmp_path / "again.safetensors", resume=True)
    assert _document(tmp_path / "again.safetensors") == _document(kept.path_of(name))
    (again, _), (before, _) = read(tmp_path / "again.safetensors"), read(kept.path_of(name))
    assert again.keys() == before.keys()
    assert all(value.equal(before[key]) for key, value in again.items())


def test_every_file_has_its_program() -> None:
    assert {path.stem for path in kept.FOLDER.glob("*.safetensors")} == set(kept.PROGRAMS)


_ELSEWHERE = {
    *(
        "parse",
        "parse-json",
        "parse-number",
        "zero-shot-cot",
        "least-to-most",
    ),  # of generated texts
    *("from-activations", "from-tensor", "patch-uniform"),  # a file holds the values drawn
    *("identity", "full-mask"),  # left out, since they are what is meant where nothing is said
    *("normalize", "stored"),  # made by compiling and by precomputing
}


def _kinds(tree: Any) -> set[str]:
    if isinstance(tree, dict):
        return {str(tree.get("kind"))}.union(*map(_kinds, tree.values()))
    return set().union(*map(_kinds, tree)) if isinstance(tree, list) else set()


def test_every_kind_that_programs_hold_is_kept() -> None:
    found = set().union(*(_kinds(_document(path)["program"]) for path in kept.FOLDER.glob("*.s*")))
    ours = {
        kind
        for kind, made in registry._KINDS.items()
        if made.__module__.startswith("graphprog.") and not issubclass(made, Pass)
    }
    assert ours - found <= _ELSEWHERE


def test_a_kept_graph_file_takes_the_programs_of_its_source() -> None:
    graph = gp.Graph.load(kept.GRAPH)
    wanted = json.loads(kept.OUTPUTS.read_text(encoding="utf-8"))["prefix"]
    task = gp.load(kept.path_of("prefix"), graph)
    found = kept.outputs_of("prefix", task)
    torch.testing.assert_close(found.double(), torch.tensor(wanted).double(), rtol=1e-5, atol=1e-5)
    assert graph.fingerprint.text == kept.graph_of("words").fingerprint.text
