"""Commands in this process: what they print, and their exit codes."""

from __future__ import annotations

import csv
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.cli.main import main
from graphprog.cli.use.thumbnail import thumbnails
from tests.models.corner_models import ResidualNet
from tests.support.environments import ROOT

BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two graphs and two programs."""
    made = tmp_path_factory.mktemp("a folder")
    torch.manual_seed(0)
    hints = {"labels": [f"class {number}" for number in range(10)]}
    graph = gp.capture(ResidualNet().eval(), (torch.zeros(2, 3, 8, 8),), hints=hints)
    graph.save(made / "net.graph")
    gp.optimize(graph).save(made / "other.graph")
    for name, at in (("one", "hidden[0]"), ("two", "hidden[1]")):
        program = gp.Program([gp.Additive(), gp.Scale(at=at)])
        gp.save(gp.compile(graph, program), made / f"{name}.safetensors")
    contract = gp.Contract(labels=("ant", "bee"))
    mapped = gp.Program([gp.Additive()], align=gp.FixedMap(2), contract=contract)
    gp.save(gp.compile(graph, mapped), made / "map.safetensors")
    gp.backends.onnx.export(gp.compile(graph, mapped), made / "map.onnx")
    return made


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])  # main adds to it


def told(capsys: pytest.CaptureFixture[str], line: str, code: int = 0) -> str:
    """What a command prints, whose exit code is given; the errors of one that fails."""
    assert main(shlex.split(line)) == code
    printed = capsys.readouterr()
    return printed.err if code > 1 else printed.out


def test_inspect_shows_the_model_and_its_interfaces(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "inspect net.graph")
    assert text.startswith("ResidualNet\n  inputs ")
    assert "hidden[0–2]" in text
    assert "×" in text
    assert "class 0, class 1" in text
    some = told(capsys, "inspect net.graph --interfaces 'blocks.1*'")
    assert "blocks.1:out" in some
    assert "blocks.0:out" not in some


def test_inspect_prints_json_and_operations(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(told(capsys, "inspect net.graph --json"))
    graph = gp.Graph.load("net.graph")
    assert found["fingerprint"]["text"] == graph.fingerprint.text
    assert [place["key"] for place in found["interfaces"]] == list(graph.interfaces())
    assert found["hints"]["labels"][9] == "class 9"
    assert told(capsys, "inspect net.graph --ir") == graph.text + "\n"


def test_why_says_what_fits_and_what_not(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "inspect net.graph --why features")
    assert re.search(r"additive +yes, 8 parameters", text)
    assert re.search(r"linear head +yes, 18 parameters", text)
    assert re.search(r"prefix +no: .*not the result of attention", text)
    assert re.search(r"concatenative +no: ", text)
    image = told(capsys, "inspect net.graph --why input")
    rows_or_columns = r"concatenative +yes, on axis 2 \(48 parameters\) or axis 3 \(48 parameters\)"
    assert re.search(rows_or_columns, image)
    block = told(capsys, "inspect net.graph --why hidden[0]")
    assert re.search(r"linear head +yes, 18 parameters", block)  # pooled


def test_rewrite_shows_what_each_pass_changed(capsys: pytest.CaptureFixture[str]) -> None:
    passes = "fold-batch-norm ; drop-dropout"
    text = told(capsys, f"rewrite net.graph --passes '{passes}' -o folded.graph")
    first, second = text.split("== drop-dropout")
    assert "fold-batch-norm" in first
    assert "\n-  " in first
    assert "changed nothing" in second
    assert gp.Graph.load("folded.graph").text != gp.Graph.load("net.graph").text
    text = told(capsys, "rewrite net.graph --passes drop-dropout --print-after")
    assert gp.Graph.load("net.graph").text in text


def test_diff_is_one_where_something_differs(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "diff net.graph net.graph") == ""
    assert "@@ blocks.0 @@" in told(capsys, "diff net.graph other.graph", 1)
    changed = told(capsys, "diff one.safetensors two.safetensors", 1)
    assert re.search(r"^- .*at hidden\[0\]: scale", changed, re.MULTILINE)


def test_show_prints_what_a_program_file_holds(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "show one.safetensors")
    assert "at input: additive\n" in text
    assert "program.additive.value: f32[3,8,8]" in text
    found = json.loads(told(capsys, "show one.safetensors --json"))
    assert found["tensors"]["program.additive.value"] == "f32[3,8,8]"
    assert found["source"]["name"] == "ResidualNet"
    assert "additive: learnable, input, additive\n" in text
    assert found["coordinates"][-1] == ["alignment", "identity"]


def test_a_model_is_exported_and_labels_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert "same label" in told(
        capsys, "export net.graph --program map.safetensors -o new.onnx --mode overridable"
    )
    task = gp.load("map.safetensors", gp.Graph.load("net.graph"))
    images = torch.rand(3, 3, 8, 8)
    np.save("rows.npy", images)
    np.savez("rows.npz", **{task.inputs[0].name: images})
    with torch.no_grad():
        shares = task(images).softmax(1)
    best = [("ant", "bee")[number] for number in shares.argmax(1).tolist()]
    for name in ("rows.npy", "rows.npz"):
        lines = told(capsys, f"predict new.onnx {name} --program map.safetensors").splitlines()[2:]
        assert [line.split()[1] for line in lines] == best
    found = json.loads(told(capsys, "predict map.onnx rows.npy --format json"))
    torch.testing.assert_close(
        torch.tensor([[row["probabilities"][name] for name in ("ant", "bee")] for row in found]),
        shares,
        rtol=1e-4,
        atol=1e-5,
    )
    table = list(csv.reader(told(capsys, "predict map.onnx rows.npy --format csv").splitlines()))
    assert table[0] == ["row", "label", "probability"]
    assert [row[1] for row in table[1:]] == best


def test_a_training_step_is_exported(capsys: pytest.CaptureFixture[str]) -> None:
    line = "export net.graph -o step.onnx --mode training"
    assert "(training step)  passed" in told(capsys, f"{line} --program map.safetensors")
    assert gp.backends.onnxruntime.Trainer("step.onnx").program_state()
    assert "a training step needs --program" in told(capsys, line, 2)


def test_a_model_alone_is_exported(capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "export net.graph -o alone.pt2")
    images, graph = torch.rand(3, 3, 8, 8), gp.Graph.load("net.graph")
    found = gp.backends.pytorch.load("alone.pt2")(images)
    torch.testing.assert_close(found, graph(images))
    told(capsys, "export net.graph -o read.onnx --return logits --return hidden[1]")
    session = gp.backends.onnxruntime.Session("read.onnx")
    both = session.run(images.numpy(), outputs=["logits", "hidden[1]"])
    expected = gp.record(graph, images, ["hidden[1]"])["hidden[1]"]
    torch.testing.assert_close(torch.as_tensor(both["hidden[1]"]), expected, rtol=1e-4, atol=1e-5)


def test_methods_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "methods")
    assert len(text.splitlines()) == len(gp.methods.__all__)
    assert re.search(r"^vpt-deep +VPT-deep \(Jia et al., ECCV 2022\)$", text, re.MULTILINE)
    shown = told(capsys, "methods show vpt-deep")
    assert "\nJia et al., ECCV 2022: learnable, embedding+hidden, concatenative, linear\n" in shown
    assert shown.startswith("gp.methods.vpt_deep(tokens=10, init=None")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("inspekt x", "error: No such command 'inspekt'"),
        ("inspect", "error: Missing argument"),
        ("inspect absent.graph", "error: absent.graph"),
        ("inspect tim:resnet18", "error: 'tim:resnet18' is not the name of a model"),
        ("inspect net.graph --why hiden", "error: this graph has no interface 'hiden'"),
        ("rewrite net.graph --passes 'nonsense'", "error: unknown spec kind 'nonsense'"),
        (
            "rewrite net.graph --passes fold-batchnorm",
            "error: unknown spec kind 'fold-batchnorm'\nTry:\n  1. did you mean fold-batch-norm",
        ),
        ("methods show vpt", "error: there is no method 'vpt'\nTry: one of vpt-"),
        ("show net.graph", "error: net.graph"),
        ("export net.graph -o a.txt", "error: a.txt: the name ends in neither .onnx nor .pt2"),
        ("export net.graph -o a.pt2 --opset 18", "error: a.pt2: --mode, --opset and --return"),
        ("predict absent.onnx rows.npy", "error: absent.onnx"),
        ("predict map.onnx net.graph", "error: net.graph: a .graph is not data"),
        ("predict absent.onnx rows.npy --format xml", "error: there is no format 'xml'"),
        (f"inspect {__name__}:failing", "error: .*:failing: ZeroDivisionError: mine, at .*py:"),
    ],
)
def test_a_mistake_is_one_message(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(capsys, line, 2)
    assert re.match(message, text)
    assert "Traceback" not in text


def failing() -> nn.Module:
    raise ZeroDivisionError("mine")


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, f"inspect {__name__}:failing --debug", 2)
    assert "Traceback" in text
    assert 'raise ZeroDivisionError("mine")' in text


def test_other_failures_are_ones_of_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*args: object) -> None:
        raise KeyError("inside")

    monkeypatch.setattr(gp.Graph, "summary", fails)
    assert main(["inspect", "net.graph"]) == 1
    assert "error: KeyError: 'inside'" in capsys.readouterr().err

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gp.Graph, "summary", interrupted)
    assert main(["inspect", "net.graph"]) == 130


def test_the_page_of_commands_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    page = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
    for language, block in BLOCK.findall(page):
        if language == "python":
            exec(block, names)
            continue
        for line in block.splitlines():
            command, *words = shlex.split(line)
            assert (command, main(words)) == ("graphprog", 0), line
    assert "program.additive.value: f32[3,8,8]" in capsys.readouterr().out


def test_show_draws_patterns_where_the_terminal_has_colors(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "▀" not in told(capsys, "show one.safetensors")
    pattern = torch.tensor([[[0.0, 1.0], [0.5, 0.25], [1.0, 0.0]]])  # 1 channel, 3 x 2
    (text,) = thumbnails(
        {"value": pattern, "mapping": torch.zeros(3, 4), "row": torch.ones(3, 1, 4)}
    )
    assert text.plain == "\nvalue, from 0 to 1\n▀▀\n▀▀\n"
    styles = [str(one.style) for one in text.spans]
    assert styles[:2] == ["rgb(0,0,0) on rgb(128,128,128)", "rgb(255,255,255) on rgb(64,64,64)"]
    assert styles[2:] == ["rgb(255,255,255)", "rgb(0,0,0)"]
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert told(capsys, "show one.safetensors").count("▀") == 8 * 4
