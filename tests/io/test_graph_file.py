"""Graphs in files: the same bits without the model's code, and nothing but data."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.utils import _pytree as pytree

import graphprog as gp
from graphprog import backends
from graphprog.errors import FileError, ProgramError
from graphprog.ir.graph_file.container import KEY
from tests.models.zoo import CASES, captured

READ = """
import sys, torch, graphprog as gp
graph = gp.Graph.load(sys.argv[1])
found = graph.run(torch.load(sys.argv[2], weights_only=True))
torch.save([value for value in found if isinstance(value, torch.Tensor)], sys.argv[3])
print(graph.fingerprint.text, graph.fingerprint.weights)
assert not {"transformers", "timm", "torchvision", "tests"} & set(sys.modules)
"""


@pytest.mark.parametrize("name", ["residual", "transformer", "tied", "gpt2", "dictionary"])
def test_another_process_gets_the_same_bits(name: str, tmp_path: Path) -> None:
    """A network with batch norm, an encoder with masks, tied weights, GPT-2, a dictionary."""
    _, graph = captured(name)
    graph.save(tmp_path / "m.graph")
    args, kwargs = CASES[name].call(3)
    flat = graph.call_spec.bind(args, kwargs)
    torch.save(flat, tmp_path / "inputs")
    paths = [str(tmp_path / file) for file in ("m.graph", "inputs", "outputs")]
    done = subprocess.run(
        [sys.executable, "-c", READ, *paths], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [graph.fingerprint.text, graph.fingerprint.weights]
    found = torch.load(tmp_path / "outputs", weights_only=True)
    expected = [value for value in graph.run(flat) if isinstance(value, torch.Tensor)]
    assert len(found) == len(expected)
    assert all(map(torch.equal, found, expected))


class Small(nn.Module):
    """Convolution, batch norm and a head that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(x)).relu().mean((2, 3))
        return self.head(self.head(x).relu())


@pytest.fixture(scope="module")
def graph() -> gp.Graph:
    torch.manual_seed(0)
    model = Small().eval()
    nn.init.uniform_(model.norm.running_mean, -0.5, 0.5)
    hints = {"mean": [0.5], "std": 0.25, "labels": ["a", "b", "c", "d"]}
    return gp.capture(model, (torch.randn(2, 1, 6, 6),), hints=hints)


@pytest.fixture
def path(graph: gp.Graph, tmp_path: Path) -> Path:
    graph.save(tmp_path / "small.graph")
    return tmp_path / "small.graph"


def test_what_is_kept(graph: gp.Graph, path: Path) -> None:
    again = gp.capture(path)
    assert again.text == graph.text
    assert str(again.interfaces()) == str(graph.interfaces())
    assert (again.aliases, again.choices, again.sites) == (
        dict(graph.aliases),
        dict(graph.choices),
        dict(graph.sites),
    )
    assert again.hints == {"mean": (0.5,), "std": (0.25,), "labels": ("a", "b", "c", "d")}
    assert [node.name for node in again.code.nodes] == [node.name for node in graph.code.nodes]
    with pytest.raises(ProgramError, match="a hint must be one of mean, std"):
        gp.capture(Small(), (torch.randn(2, 1, 6, 6),), hints={"name": "x"})


def test_the_name_of_the_tokenizer_is_kept_and_the_object_is_not(
    graph: gp.Graph, tmp_path: Path
) -> None:
    class Tokenizer:
        name_or_path = "some/model"

    dataclasses.replace(graph, tokenizer=Tokenizer()).save(tmp_path / "m.graph")
    assert gp.Graph.load(tmp_path / "m.graph").hints["tokenizer"] == "some/model"
    given = Tokenizer()
    assert gp.Graph.load(tmp_path / "m.graph", tokenizer=given).tokenizer is given


def test_weights_in_another_order_of_memory_keep_it(tmp_path: Path) -> None:
    model = Small().eval().to(memory_format=torch.channels_last)
    graph = gp.capture(model, (torch.randn(2, 1, 6, 6),))
    graph.save(tmp_path / "m.graph")
    again = gp.Graph.load(tmp_path / "m.graph")
    for name, weight in graph.weights.source.named_parameters():
        other = again.weights.source.get_parameter(name)
        assert torch.equal(weight, other)
        assert weight.stride() == other.stride(), name


PROGRAM = gp.Program([gp.Additive(at="input"), gp.Scale(at="stem:out")], align=gp.LinearHead(3))


def test_a_program_goes_from_one_graph_to_the_other(
    graph: gp.Graph, path: Path, tmp_path: Path
) -> None:
    again = gp.Graph.load(path)
    task = gp.compile(again, PROGRAM)
    data = torch.utils.data.TensorDataset(torch.randn(8, 1, 6, 6), torch.arange(8) % 3)
    gp.fit(task, data, epochs=1, batch_size=4)
    gp.save(task, tmp_path / "p.safetensors")
    other = gp.load(tmp_path / "p.safetensors", graph)
    x = torch.randn(3, 1, 6, 6)
    assert torch.equal(task(x), other(x))
    assert any(value.any() for value in task.program_state().values())


def test_an_export_of_it_is_the_same_file(graph: gp.Graph, path: Path, tmp_path: Path) -> None:
    files = []
    for number, source in enumerate((graph, gp.Graph.load(path))):
        file = tmp_path / f"{number}.onnx"
        backends.onnx.export(gp.compile(source, PROGRAM), file)
        model = onnx.load(file)
        files.append(
            [(node.op_type, list(node.input), list(node.output)) for node in model.graph.node]
        )
        files[-1] += [(one.name, one.raw_data) for one in model.graph.initializer]
    assert files[0] == files[1]


def test_a_program_inside_is_refused(graph: gp.Graph, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"gp.save\(task, path\)"):
        gp.compile(graph, PROGRAM).graph.save(tmp_path / "m.graph")
    assert not list(tmp_path.iterdir())


def changed(path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> Path:
    """The file with another document or other tensors."""
    tensors = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, "pt") as file:
        document = json.loads(file.metadata()[KEY])
    change(document, tensors)
    safetensors.torch.save_file(tensors, path, metadata={KEY: json.dumps(document)})
    return path


def operation(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The first entry of an operation that is called so."""
    return next(entry for entry in document["operations"] if name in entry.get("operation", ""))


def tower(depth: int) -> Any:
    return ["**", 9, tower(depth - 1)] if depth else 9


def powers(of: str) -> list[dict[str, Any]]:
    """A size, its square, the square of that, and so on."""
    size = {"node": "size", "operation": "aten::sym_size.int", "args": [{"node": of}, 0]}
    names = ["size", *(f"power_{number}" for number in range(6))]
    squares = [
        {"node": new, "operation": "operator.mul", "args": [{"node": old}, {"node": old}]}
        for old, new in itertools.pairwise(names)
    ]
    return [size, *squares]


DAMAGE: dict[str, tuple[Callable[[dict[str, Any], dict[str, torch.Tensor]], Any], str]] = {
    "unknown operation": (
        lambda d, t: operation(d, "relu").update(operation="aten::no_such.default"),
        r"'aten::no_such.default' does not exist",
    ),
    "file of another": (
        lambda d, t: operation(d, "relu").update(
            operation="aten::from_file.default", args=["/etc/passwd"]
        ),
        r"'aten::from_file.default' may not be in a graph file",
    ),
    "script operation": (
        lambda d, t: operation(d, "relu").update(operation="aten::save.default"),
        r"'aten::save.default' does not exist",
    ),
    "network": (
        lambda d, t: operation(d, "relu").update(operation="c10d::send.default"),
        r"may not be in a graph file",
    ),
    "in place": (
        lambda d, t: operation(d, "relu").update(operation="aten::relu_.default"),
        "changes its arguments",
    ),
    "python": (
        lambda d, t: operation(d, "relu").update(operation="os.system"),
        "'os.system' may not be in a graph file",
    ),
    "large power": (lambda d, t: d["inputs"][0].update(shape=[tower(4), 1, 6, 6]), "not a size"),
    "text as a size": (
        lambda d, t: d["inputs"][0].update(shape=["9**9**9**9", 1, 6, 6]),
        r"'9\*\*9\*\*9\*\*9' is not a size",
    ),
    "size of many terms": (
        lambda d, t: d["inputs"][0].update(shape=[["*", *[["+", "s77", 1]] * 40], 1, 6, 6]),
        "more parts than that of any model",
    ),
    "negative size": (
        lambda d, t: d["inputs"][0].update(shape=[-1, 3]),
        "has no such shape: Trying to create tensor with negative dimension",
    ),
    "shape of many dimensions": (
        lambda d, t: d["inputs"][0].update(shape=["s77"] + [1] * 300),
        "a shape of 301 dimensions",
    ),
    "shape of many sizes that vary": (
        lambda d, t: d["inputs"][0].update(shape=["s77"] * 30),
        "power 30 of sizes that vary",
    ),
    "operation with many dimensions": (
        lambda d, t: operation(d, "relu").update(
            operation="aten::view.default",
            args=[{"node": d["inputs"][0]["node"]}, [-1] + [1] * 300],
        ),
        "a shape of 301 dimensions",
    ),
    "powers of powers": (
        lambda d, t: d["operations"].extend(powers(d["inputs"][0]["node"])),
        "a higher power of sizes",
    ),
    "list as a number": (
        lambda d, t: operation(d, "relu").update(operation="operator.mul", args=[[0], 10**10]),
        "an operation on numbers is given text or a list",
    ),
    "missing weight": (lambda d, t: t.pop("head.bias"), "weight 'head.bias' is missing"),
    "missing entry": (lambda d, t: d["weights"].pop("head.bias"), "weight 'head.bias' is missing"),
    "wrong shape": (lambda d, t: t.update({"head.bias": torch.zeros(7)}), "weight 'head.bias' is"),
    "cycle": (
        lambda d, t: operation(d, "relu").update(args=[{"node": operation(d, "relu")["node"]}]),
        "no operation before it has that name",
    ),
    "code as a name": (
        lambda d, t: operation(d, "relu").update(node="x = __import__('os')"),
        "is not a name of an operation",
    ),
    "code as a weight": (
        lambda d, t: d["weights"].update({'a"]; import os': d["weights"]["head.bias"]}),
        "is not the path of a weight",
    ),
    "code as an input": (lambda d, t: d["inputs"][0].update(name="x=exit()"), "name of an input"),
    "another operation": (
        lambda d, t: operation(d, "relu").update(operation="aten::tanh.default"),
        "the file was changed",
    ),
    "interface elsewhere": (
        lambda d, t: d["interfaces"]["stem:out"].update(node=d["inputs"][0]["node"]),
        "interface 'stem:out' does not lie",
    ),
    "newer layout": (lambda d, t: d["format"].update(version=2), "layout 2 of graph files"),
    "other torch": (
        lambda d, t: d.update(torch="2.99.0", text="0" * 64),
        r"written[\s\S]*pip install torch==2.99.0",
    ),
    "nothing in it": (lambda d, t: d.clear(), "its description is damaged"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_changed_file_is_refused_by_name(name: str, path: Path) -> None:
    change, message = DAMAGE[name]
    changed(path, change)
    with pytest.raises(FileError, match=message) as refusal:
        gp.Graph.load(path)
    assert str(path) in str(refusal.value)


def test_other_files_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        gp.Graph.load(tmp_path / "none.graph")
    data = path.read_bytes()
    for length in (0, 7, 100, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(FileError, match="not a graph file, or damaged"):
            gp.Graph.load(path)
    safetensors.torch.save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(FileError, match=r"gp\.load"):
        gp.capture(path)


def test_a_result_of_a_class_is_a_dictionary_afterwards(tmp_path: Path) -> None:
    _, graph = captured("gpt2")
    graph.save(tmp_path / "m.graph")
    again = gp.Graph.load(tmp_path / "m.graph")
    args, kwargs = CASES["gpt2"].call(2)
    found, expected = again(*args, **kwargs), graph(*args, **kwargs)
    assert type(found) is dict
    assert list(found) == list(expected.keys())
    assert torch.equal(found["logits"], expected["logits"])
    assert len(pytree.tree_leaves(found)) == len(again.outputs)
