"""Programs of several kinds on one source: a graph for each kind, the weights once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import graphprog as gp
from graphprog.backends.onnxruntime import MultiSession
from graphprog.errors import BackendError, DataError, FileError
from tests.models.deployed_tasks import text_batch, text_graph

pytestmark = pytest.mark.xdist_group("deployed-slots")

NORMAL = gp.Learnable("normal", 0.5)
SLOTS = {
    "tokens": gp.Program(
        [gp.Concatenative(at="tokens", length=3, tables="zeros", value=NORMAL)],
        align=gp.LinearHead(4),
    ),
    "prefix": gp.Program([gp.Prefix(length=2, value=NORMAL)], align=gp.BayesianMap(3)),
}


@pytest.fixture(scope="module")
def graph() -> gp.Graph:
    return text_graph()


@pytest.fixture(scope="module")
def tasks(graph: gp.Graph) -> dict[str, gp.ReprogrammedModel]:
    """Two programs of each kind, with heads of other numbers of classes in one of them."""
    heads = [gp.LinearHead(2), gp.LinearHead(5)]
    made = {}
    for seed, head in enumerate(heads):
        program = gp.Program(SLOTS["tokens"].manipulations, align=head)
        made[f"tokens{seed}"] = gp.compile(graph, program, seed=seed)
        contract = gp.Contract(labels=tuple("xyz"))
        program = gp.Program(
            SLOTS["prefix"].manipulations, align=gp.BayesianMap(3), contract=contract
        )
        made[f"prefix{seed}"] = gp.compile(graph, program, seed=seed)
        made[f"prefix{seed}"].alignment.refresh(torch.rand(20, 3).double())
    return made


@pytest.fixture(scope="module")
def folder(
    graph: gp.Graph,
    tasks: dict[str, gp.ReprogrammedModel],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("slots")
    reports = gp.backends.onnx.export_multi_graph(graph, folder / "served", SLOTS)
    assert list(reports) == list(SLOTS)
    assert all(report.passed for report in reports.values())
    for name, task in tasks.items():
        gp.save(task, folder / f"{name}.safetensors")
    return folder


@pytest.fixture(params=[False, True], ids=["packed", "shared"])
def slots(
    folder: Path, tasks: dict[str, gp.ReprogrammedModel], request: pytest.FixtureRequest
) -> Iterator[MultiSession]:
    found = MultiSession(folder / "served", providers="cpu", share=request.param)
    for name in tasks:
        found.add(name, folder / f"{name}.safetensors")
    return found


def test_the_weights_lie_on_the_disk_once(folder: Path) -> None:
    (data,) = (folder / "served").glob("*.data")
    assert sorted(path.name for path in (folder / "served").iterdir()) == sorted(
        [data.name, "prefix.onnx", "tokens.onnx"]
    )
    places: dict[str, set[tuple[str, str]]] = {}
    for slot in SLOTS:
        model = onnx.load(folder / "served" / f"{slot}.onnx", load_external_data=False)
        outside = [one for one in model.graph.initializer if one.external_data]
        told = [{entry.key: entry.value for entry in one.external_data} for one in outside]
        places[slot] = {(one["location"], one["offset"]) for one in told}
        onnx.checker.check_model(folder / "served" / f"{slot}.onnx", full_check=True)
    shared = places["tokens"] & places["prefix"]
    assert len(shared) >= 4
    assert {location for location, _ in shared} == {data.name}


def test_each_program_is_run_by_the_graph_of_its_kind(
    slots: MultiSession, tasks: dict[str, gp.ReprogrammedModel]
) -> None:
    assert slots.list() == tuple(tasks)
    given = text_batch(3, 9)
    for name, task in tasks.items():
        expected = task(*given).detach().numpy()
        assert np.allclose(slots.run(*given, program=name), expected, atol=1e-5)


def test_rows_of_several_kinds(slots: MultiSession, tasks: dict[str, gp.ReprogrammedModel]) -> None:
    names = ["prefix1", "tokens0", "tokens1", "prefix0", "tokens1", "tokens0"]
    given = text_batch(6, 8)
    found = slots.run(*given, program=names)
    assert found.shape == (6, 5)
    for row, name in enumerate(names):
        one = tasks[name](*(value[row : row + 1] for value in given)).detach().numpy()[0]
        assert np.allclose(found[row, : len(one)], one, atol=1e-5)
        assert (found[row, len(one) :] == -np.inf).all()
    prefixed = slots.predict(*given, program=["prefix0"] * 3 + ["prefix1"] * 3)
    assert set(prefixed) <= set("xyz")
    with pytest.raises(BackendError, match="does not name its classes"):
        slots.predict(*given, program=names)


def test_a_graph_is_loaded_when_it_is_needed(folder: Path) -> None:
    slots = MultiSession(folder / "served", providers="cpu", memory=1)
    slots.add("a", folder / "tokens0.safetensors")
    slots.add("b", folder / "prefix0.safetensors")
    assert not slots._sessions
    slots.run(*text_batch(2, 5), program="a")
    assert list(slots._sessions) == ["tokens"]
    slots.run(*text_batch(2, 5), program=["a", "b"])
    assert list(slots._sessions) == ["tokens", "prefix"]


def test_shared_weights_outlive_the_folder_object(folder: Path) -> None:
    session = MultiSession(folder / "served", providers="cpu", share=True).session("tokens")
    assert len(session.shared_weights) > 3
    assert np.isfinite(session.run(*text_batch(2, 5))).all()


def test_bad_programs_and_rows(slots: MultiSession, graph: gp.Graph, tmp_path: Path) -> None:
    other = gp.compile(graph, gp.Program([gp.Prefix(length=3)], align=gp.LinearHead(2)))
    gp.save(other, tmp_path / "other.safetensors")
    with pytest.raises(FileError, match=r"not of the kind that prefix or tokens was exported"):
        slots.add("other", tmp_path / "other.safetensors")
    with pytest.raises(BackendError, match="no program 'other'"):
        slots.run(*text_batch(2, 5), program="other")
    for given, program in ((text_batch(2, 5), ["tokens0", "prefix0", "tokens0"]),):
        with pytest.raises(DataError, match="there are 3 programs for 2 rows"):
            slots.run(*given, program=program)
    with pytest.raises(BackendError, match="does not say which slot"):
        slots.add("x", other.program_state())
    with pytest.raises(BackendError, match="no slot 'pixels'; there are prefix, tokens"):
        slots.session("pixels")


def test_bad_folders(graph: gp.Graph, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there are no slots"):
        MultiSession(tmp_path)
    (tmp_path / "bad.onnx").write_bytes(b"garbage")
    with pytest.raises(FileError, match=r"bad\.onnx: not an ONNX file|not a file of graphprog"):
        MultiSession(tmp_path)
    (tmp_path / "bad.onnx").write_bytes((folder / "served" / "tokens.onnx").read_bytes())
    for share in (False, True):
        with pytest.raises(FileError, match=r"source-\w+\.data"):
            MultiSession(tmp_path, providers="cpu", share=share).session("bad")


def test_bad_slots(graph: gp.Graph, tmp_path: Path) -> None:
    for name in ("", "../up", "a.b", ".hidden"):
        with pytest.raises(BackendError, match="cannot be the name of a file"):
            gp.backends.onnx.export_multi_graph(graph, tmp_path / "x", {name: gp.Program()})
    with pytest.raises(BackendError, match="there are no slots"):
        gp.backends.onnx.export_multi_graph(graph, tmp_path / "x", {})
    assert not list(tmp_path.iterdir())
    with pytest.raises(BackendError, match="not computed as each alone"):
        gp.backends.onnx.export_multi_graph(
            graph, tmp_path / "x", {"tokens": SLOTS["tokens"]}, tolerance=-1.0
        )
    assert not list((tmp_path / "x").iterdir())
