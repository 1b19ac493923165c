"""What the graph page is given, checked against the graph itself."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import graphprog as gp
from graphprog.cli.main import main
from graphprog.errors import DataError, FileError, InterfaceError
from graphprog.ir.drawing.document import Stage, document_of
from tests.models.corner_models import ResidualNet
from tests.support.fuzzing.hostile_graph import HOSTILE, hostile

DATA = re.compile(r'<script type="application/json" id="graphs">(.*?)</script>', re.DOTALL)


@pytest.fixture(scope="module")
def graph() -> gp.Graph:
    torch.manual_seed(0)
    return gp.capture(ResidualNet().eval(), (torch.zeros(2, 3, 8, 8),))


@pytest.fixture(scope="module")
def task(graph: gp.Graph) -> gp.ReprogrammedModel:
    parts = [gp.Additive(), gp.Scale(at="hidden[*]")]
    return gp.compile(graph, gp.Program(parts, align=gp.LinearHead(2, at="features")))


def read(path: Path) -> dict[str, Any]:
    """The document of a page."""
    (text,) = DATA.findall(path.read_text(encoding="utf-8"))
    found: dict[str, Any] = json.loads(text)
    return found


def records(document: dict[str, Any], graph: int) -> dict[str, dict[str, Any]]:
    """The nodes of a graph by name, with texts in place of numbers."""
    fields = ["kind", "name", "op", "call", "type", "where", "part", "operator", "source"]
    text = document["strings"].__getitem__
    found = {}
    for number in document["graphs"][graph]["nodes"]:
        *plain, inputs, weights = document["records"][number]
        one: dict[str, Any] = dict(zip(fields, map(text, plain), strict=True))
        found[one["name"]] = {
            **one,
            "inputs": [*map(text, inputs)],
            "weights": [*map(text, weights)],
        }
    return found


def test_every_operation_is_there_with_what_it_reads(graph: gp.Graph, tmp_path: Path) -> None:
    document = read(graph.draw(tmp_path / "graph.html"))
    found = records(document, 0)
    calls = [node for node in graph.code.nodes if node.op == "call_function"]
    assert [name for name, one in found.items() if one["kind"] == "call_function"] == [
        node.name for node in calls
    ]
    for node in calls:
        one = found[node.name]
        read_by = [part.name for part in node.all_input_nodes if part.op != "get_attr"]
        assert one["inputs"] == read_by
        assert len(one["weights"]) == len(node.all_input_nodes) - len(read_by)
    norm = found["batch_norm_1"]
    assert (norm["where"], norm["type"]) == ("blocks.1.norm", "f32[B,8,4,4]")
    assert norm["weights"][0] == "blocks.1.norm.weight f32[8]"
    assert found["add__2"]["source"] == "tests/models/corner_models.py:35: y += x"
    places = document["graphs"][0]["interfaces"]
    assert [place[0] for place in places] == list(graph.interfaces())
    assert [len(document["history"]), document["history"][0][0]] == [
        len(graph.history),
        graph.history[0].text,
    ]


def test_a_task_shows_the_graph_after_every_pass(
    task: gp.ReprogrammedModel, tmp_path: Path
) -> None:
    document = read(task.draw(tmp_path / "task.html"))
    labels = [one["label"] for one in document["graphs"]]
    assert labels == ["source", *(str(item) for item in task.pipeline.passes)]
    sizes = [len(one["nodes"]) for one in document["graphs"]]
    assert sizes == sorted(sizes)
    assert len(document["records"]) < sum(sizes) / 2, "shared operations are stored once"
    last = records(document, -1)
    assert {one["operator"] for one in last.values()} == {"", "additive", "scale", "align"}
    assert [one[2] for one in document["graphs"][-1]["insertions"]] == [
        "additive",
        "scale",
        "scale",
        "scale",
        "align",
    ]
    assert "add" in last
    assert "add" not in records(document, 0)


def test_dependence_is_that_of_explain(task: gp.ReprogrammedModel, tmp_path: Path) -> None:
    document = read(task.draw(tmp_path / "task.html"))
    names = [*records(document, -1)]
    depends = [document["strings"][number] for number in document["graphs"][-1]["depends"]]
    by_name = dict(zip(names, depends, strict=True))
    assert by_name["x"] == "samples"
    assert by_name["program_scale_0_value"] == by_name["to"] == "program"
    assert by_name["linear_1"] == "weights + program + samples"


def test_recorded_values_are_those_of_the_tensor(
    task: gp.ReprogrammedModel, tmp_path: Path
) -> None:
    values = gp.record(task, torch.randn(4, 3, 8, 8), at=["hidden[0]", "logits"])
    found = read(task.draw(tmp_path / "task.html", values=values))["values"]
    place = task.graph.interfaces().resolve("hidden[0]")
    one, tensor = found[place.key], values["hidden[0]"].double()
    assert one["type"] == "f32[4,8,4,4]"
    assert one["mean"] == pytest.approx(tensor.mean().item())
    assert one["std"] == pytest.approx(tensor.std(correction=0).item())
    assert (one["min"], one["max"]) == (tensor.min().item(), tensor.max().item())
    assert one["counts"] == torch.histc(tensor, 32).long().tolist()


def test_values_that_are_not_finite_are_counted(graph: gp.Graph, tmp_path: Path) -> None:
    values = torch.tensor([[1.0, float("nan"), float("inf"), -1.0]])
    found = read(graph.draw(tmp_path / "a.html", values={"logits": values}))["values"]
    (one,) = found.values()
    assert (one["not_finite"], one["min"], one["max"]) == (2, -1.0, 1.0)
    assert one["picture"] == [[255, -1, -1, 0]]
    nothing = graph.draw(tmp_path / "b.html", values={"logits": torch.full((2, 2), float("nan"))})
    (one,) = read(nothing)["values"].values()
    assert one == {"name": "logits", "type": "f32[2,2]", "not_finite": 4}


def test_mistakes_are_named(graph: gp.Graph, tmp_path: Path) -> None:
    with pytest.raises(InterfaceError, match="hiden"):
        graph.draw(tmp_path / "a.html", values={"hiden[0]": torch.zeros(1)})
    with pytest.raises(DataError, match="'logits' is list, not a tensor"):
        graph.draw(tmp_path / "a.html", values={"logits": [1.0]})  # type: ignore[dict-item]
    with pytest.raises(FileError):
        graph.draw(tmp_path / "nowhere" / "a.html")
    with pytest.raises(gp.errors.ProgramError, match="a graph is needed"):
        graph.draw(tmp_path / "a.html", beside=ResidualNet())  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_graph_beside_has_the_names_of_what_it_shares(graph: gp.Graph) -> None:
    model = ResidualNet().eval()
    model.blocks[1].relu = torch.nn.GELU()
    other = gp.capture(model, (torch.zeros(2, 3, 8, 8),))
    document = document_of([Stage("one", graph), Stage("other", other, derived=False)])
    ones, others = records(document, 0), records(document, 1)
    assert set(ones) - set(others) == {"relu__1"}
    (new,) = set(others) - set(ones)
    assert others[new]["op"] == "gelu"
    assert others["batch_norm_2"] == ones["batch_norm_2"]


def test_names_are_data_and_never_markup(graph: gp.Graph, tmp_path: Path) -> None:
    page = hostile(graph).draw(tmp_path / "graph.html").read_text(encoding="utf-8")
    plain = graph.draw(tmp_path / "plain.html").read_text(encoding="utf-8")
    tags = re.compile(r"</?(?:script|img|title)\b")
    assert tags.findall(page) == tags.findall(plain)
    found = json.loads(DATA.findall(page)[0])
    assert found["title"] == HOSTILE
    assert found["graphs"][0]["interfaces"][0][0] == f"{HOSTILE}:out"
    shown = graph._repr_html_()
    assert shown.count("<iframe") == 1
    assert "<script" not in shown


def test_notebooks_show_graphs_programs_and_results(
    graph: gp.Graph, task: gp.ReprogrammedModel
) -> None:
    (page,) = re.findall(r'srcdoc="(.*?)"', graph._repr_html_(), re.DOTALL)
    assert html.unescape(page).startswith("<!doctype html>")
    program = task.spec._repr_html_()
    assert program.count("<tr>") == 1 + 2 + 1 + 1
    assert '<td style="text-align:left">hidden[*]</td>' in program
    assert "trained parameters: 222" in task._repr_html_()
    assert task.history._repr_html_().count("<tr>") == 1 + len(task.history)
    data = torch.randn(8, 3, 8, 8), torch.arange(8) % 2
    history = gp.fit(task, data, data, epochs=2, progress=False)
    shown = history._repr_html_()
    assert shown.count("<tr>") == 3
    assert "2 epochs in" in shown
    assert gp.evaluate(task, data)._repr_html_().startswith("<pre>accuracy")


def test_the_command_draws_models_programs_and_passes(
    graph: gp.Graph,
    task: gp.ReprogrammedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    graph.save("net.graph")
    gp.save(task, "task.safetensors")
    assert main(["draw", "net.graph", "task.safetensors", "-o", "page.html"]) == 0
    assert capsys.readouterr().out.endswith("page.html\n")
    assert len(read(Path("page.html"))["graphs"]) == 4
    assert main(["draw", "net.graph", "--passes", "fold-batch-norm ; drop-dead-code"]) == 0
    labels = [one["label"] for one in read(Path("graph.html"))["graphs"]]
    assert labels == ["source", "fold-batch-norm", "drop-dead-code"]
    assert main(["draw", "net.graph", "--beside", "net.graph", "-o", "two.html"]) == 0
    assert len(read(Path("two.html"))["graphs"]) == 2
    assert main(["draw", "net.graph", "task.safetensors", "--passes", "drop-dead-code"]) == 2
    assert "give one of PROGRAM, --passes and --capture-passes" in capsys.readouterr().err
    Path("own_net.py").write_text(
        "import torch\n\ndef small():\n    return torch.nn.Sequential(torch.nn.Linear(4, 4), "
        "torch.nn.Dropout()), torch.zeros(2, 4)\n"
    )
    assert main(["draw", "own_net:small", "--capture-passes", "-o", "passes.html"]) == 0
    assert read(Path("passes.html"))["graphs"][0]["label"] == "as traced"
