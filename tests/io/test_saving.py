"""Programs come back from their files exactly, on their own source only."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import graphprog as gp
from graphprog.errors import FileError
from graphprog.io.artifact import read, write
from graphprog.spec.registry import to_json
from tests.models.kept_source import PROGRAM, Source, captured, trained

KEPT = Path(__file__).resolve().parent.parent / "data" / "v1" / "image.safetensors"


def test_a_program_comes_back_exactly(tmp_path: Path) -> None:
    graph = captured()
    task = trained(graph)
    gp.save(task, tmp_path / "p.safetensors")
    again = gp.load(tmp_path / "p.safetensors", captured())
    x = torch.rand(3, 1, 6, 6)
    assert again(x).equal(task(x))
    assert again.spec == task.spec
    assert again.summary == task.summary
    assert str(again.pipeline) == str(task.pipeline)
    state = task.program_state()
    assert all(value.equal(state[name]) for name, value in again.program_state().items())


def test_it_comes_back_in_another_process(tmp_path: Path) -> None:
    task = trained(captured())
    gp.save(task, tmp_path / "p.safetensors")
    x = torch.linspace(0, 1, 36).reshape(1, 1, 6, 6)
    code = (
        "import torch, graphprog as gp; from tests.models.kept_source import captured;"
        f"task = gp.load({str(tmp_path / 'p.safetensors')!r}, captured());"
        "x = torch.linspace(0, 1, 36).reshape(1, 1, 6, 6); print(task(x).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert torch.tensor(json.loads(done.stdout)).equal(task(x).detach())


def test_the_file_is_small_and_says_everything(tmp_path: Path) -> None:
    graph = captured()
    gp.save(trained(graph), tmp_path / "p.safetensors")
    tensors, document = read(tmp_path / "p.safetensors")
    assert all(name.startswith("program.") for name in tensors)
    assert set(document) >= {
        *("format", "program", "pipeline", "source", "contract", "labels", "mapping", "training"),
    }
    assert document["labels"] == ["a", "b", "c", "d", "e"]
    assert document["source"]["weights"] == graph.fingerprint.weights
    pipeline = gp.passes.Pipeline.parse(document["pipeline"], tensors)
    assert pipeline(graph).text == gp.compile(graph, PROGRAM, seed=3).graph.text
    assert (tmp_path / "p.safetensors").stat().st_size < 16_000


def test_other_weights_are_refused(tmp_path: Path) -> None:
    gp.save(trained(captured()), tmp_path / "p.safetensors")
    with pytest.raises(FileError, match="made for other weights"):
        gp.load(tmp_path / "p.safetensors", captured(shift=0.25))


def test_another_graph_of_the_same_weights_is_refused(tmp_path: Path) -> None:
    gp.save(trained(captured()), tmp_path / "p.safetensors")
    with pytest.raises(FileError, match="another graph") as failure:
        gp.load(tmp_path / "p.safetensors", captured(side=14))
    assert str(tmp_path / "p.safetensors") in str(failure.value)


def test_another_torch_that_traces_differently_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    task = trained(captured())
    gp.save(task, path)
    tensors, document = read(path)
    document["source"] |= {"text": "0" * 64, "torch": "2.11.0"}
    write(path, tensors, document)
    with pytest.warns(UserWarning, match="traced by torch 2.11.0"):
        again = gp.load(path, captured())
    x = torch.rand(2, 1, 6, 6)
    assert again(x).equal(task(x))


def test_tensors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    gp.save(trained(captured()), path)
    tensors, document = read(path)
    for damage in (
        {"program.frame.value": torch.zeros(2, 2)},
        {"program.surplus": torch.zeros(1)},
        {"program.align.weights": torch.zeros(12, 5, dtype=torch.float64)},
    ):
        write(path, tensors | damage, document)
        with pytest.raises(FileError, match="program state"):
            gp.load(path, captured())
    del tensors["program.frame.value"]
    write(path, tensors, document)
    with pytest.raises(FileError, match=r"missing \['program.frame.value'\]"):
        gp.load(path, captured())


@pytest.mark.parametrize(
    "program",
    [
        None,
        {"kind": "additive"},
        {"kind": "program", "manipulations": [{"kind": "additive", "at": "no.such.place"}]},
        {"kind": "program", "align": {"kind": "bayesian-map", "classes": 10**9}},
        {"kind": "program", "align": {"kind": "fixed-map", "classes": 13}},
        {
            "kind": "program",
            "manipulations": [
                {"kind": "additive", "value": {"kind": "learnable", "shape": [10**6, 10**6]}}
            ],
        },
        {"kind": "program", "manipulations": [{"kind": "resize-pad", "shape": [3, 10**9, 10**9]}]},
        {"kind": "pipeline", "passes": []},
    ],
)
def test_hostile_programs_are_refused(tmp_path: Path, program: object) -> None:
    path = tmp_path / "p.safetensors"
    graph = captured()
    gp.save(gp.compile(graph, gp.Program()), path)
    tensors, document = read(path)
    write(path, tensors, document | {"program": program})
    with pytest.raises(FileError):
        gp.load(path, graph)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_change_of_the_document_loads_or_is_refused_clearly(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "p.safetensors"
    graph = captured()
    gp.save(gp.compile(graph, gp.Program([gp.Additive()], align=gp.FixedMap(3))), path)
    tensors, document = read(path)
    target = document
    while True:
        key = data.draw(st.sampled_from(sorted(target)))
        if not isinstance(target[key], dict) or not target[key] or data.draw(st.booleans()):
            break
        target = target[key]
    target[key] = data.draw(_json)
    with contextlib.suppress(FileError):  # nothing else may come out
        write(path, tensors, document)
        gp.load(path, graph)


def test_a_file_of_version_1_still_loads() -> None:
    task = gp.load(KEPT, captured())
    assert task.spec == PROGRAM
    expected = trained(captured())
    x = torch.linspace(0, 1, 72).reshape(2, 1, 6, 6)
    torch.testing.assert_close(task(x), expected(x), rtol=1e-6, atol=1e-6)


def test_equal_programs_are_equal_and_print_alike() -> None:
    assert dataclasses.replace(PROGRAM) == PROGRAM
    tensors: dict[str, torch.Tensor] = {}
    tree = to_json(PROGRAM, tensors, "program.spec")
    assert gp.Program() != PROGRAM
    assert json.loads(json.dumps(tree)) == tree


def test_a_program_of_an_optimized_source_names_the_missing_passes(tmp_path: Path) -> None:
    class Normed(Source):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(self.first(x)).relu().mean((2, 3)))

    graph = gp.capture(Normed().eval(), (torch.zeros(2, 3, 10, 10),))
    task = gp.compile(gp.optimize(graph), gp.Program([gp.Additive()]))
    gp.save(task, tmp_path / "p.safetensors")
    with pytest.raises(FileError, match=r"(?s)fold-batch-norm.*gp\.optimize\(graph\)"):
        gp.load(tmp_path / "p.safetensors", graph)
    assert gp.load(tmp_path / "p.safetensors", gp.optimize(graph)).spec == task.spec


def test_a_map_that_was_never_counted_is_saved_with_a_warning(tmp_path: Path) -> None:
    task = gp.compile(captured(), gp.Program(align=gp.FrequencyMap(3)))
    with pytest.warns(UserWarning, match="frequency-map was never fitted"):
        gp.save(task, tmp_path / "p.safetensors")


def test_a_model_in_place_of_a_graph_is_refused(tmp_path: Path) -> None:
    for use in (gp.optimize, lambda m: gp.compile(m, PROGRAM), lambda m: gp.load(KEPT, m)):
        with pytest.raises(gp.errors.ProgramError, match=r"(?s)not a Source.*gp\.capture"):
            use(Source())


def test_tasks_copy_but_are_not_pickled() -> None:
    task = trained(captured())
    twin = copy.deepcopy(task)
    x = torch.rand(2, 1, 6, 6)
    assert twin(x).equal(task(x))
    assert twin.source is task.source
    with torch.no_grad():
        twin.program.frame.value.add_(1)
    assert not twin(x).equal(task(x))
    with pytest.raises(gp.errors.ProgramError, match=r"gp\.save\(task"):
        pickle.dumps(task)


def test_what_is_no_path_is_refused() -> None:
    graph = captured()
    task = gp.compile(graph, PROGRAM)
    calls = (
        lambda: gp.load(None, graph),
        lambda: gp.load(3, graph),
        lambda: gp.save(task, None),
        lambda: gp.Graph.load(None),
        lambda: graph.save(None),
        lambda: gp.backends.onnx.export(task, None),
        lambda: gp.backends.onnxruntime.Session(None),
    )
    for call in calls:
        with pytest.raises(FileError, match=r"a path is needed, not (None|3)"):
            call()
