"""Every public name has an example in its docstring, and every example runs.

Examples find ``gp``, ``torch``, ``nn`` and ``Path``; ``graph``, a small image classifier, with
``images`` and ``labels``; ``language``, a small causal language model, with ``ids`` and its
``tokenizer``, whose tokens are bytes; ``answering``, which finds the first and the last token of an
answer; ``pairs``, which compares texts with ``pixels``; and ``task``, a program compiled into
``graph``. They run in a folder of their own, with the files ``task.safetensors`` and ``task.onnx``.
"""

from __future__ import annotations

import doctest
import inspect
import re
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import graphprog as gp
from tests.models.corner_models import ResidualNet
from tests.support.byte_tokenizer import Bytes

NAMESPACES = (
    "",
    "initializers",
    "masks",
    "patches",
    "conditioning",
    "reparameterized",
    "losses",
    "methods",
    "text",
    "generation",
    "instruments",
    "peft",
    "sources",
    "passes",
    "backends.onnx",
    "backends.onnxruntime",
)
LINES = 4


def public() -> dict[str, Any]:
    """Public classes and functions by name, each once."""
    found: dict[str, Any] = {}
    for namespace in NAMESPACES:
        module: Any = gp
        for part in filter(None, namespace.split(".")):
            module = getattr(module, part)
        for name in module.__all__:
            item = getattr(module, name)
            if (inspect.isclass(item) or inspect.isfunction(item)) and item not in found.values():
                found[".".join(filter(None, ("gp", namespace, name)))] = item
    return found


PUBLIC = public()


class Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            project(x).unflatten(-1, (2, -1)).transpose(1, 2)
            for project in (self.q, self.k, self.v)
        )
        read = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(read.transpose(1, 2).flatten(2))
        return x + self.mlp(x)


class Writer(nn.Module):
    """A causal language model over bytes."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.table = nn.Embedding(256, width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(2))
        self.head = nn.Linear(width, 256)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class Answering(nn.Module):
    """Logits of the first and of the last token of an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(256, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        start, end = self.head(self.table(ids)).unbind(-1)
        return {"start_logits": start, "end_logits": end}


class Pairs(nn.Module):
    """How well images and texts suit each other."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(256, 8)
        self.image = nn.Linear(6, 8)

    def forward(self, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        return self.image(pixels) @ self.words(ids).mean(1).T


def small_task(graph: gp.Graph) -> gp.ReprogrammedModel:
    return gp.compile(graph, gp.Program([gp.Additive()], align=gp.FixedMap(classes=2)))


@cache
def files() -> dict[str, bytes]:
    """Files of a task that examples read."""
    with TemporaryDirectory() as folder:
        task = small_task(names()["graph"])
        gp.save(task, Path(folder) / "task.safetensors")
        gp.backends.onnx.export(task, Path(folder) / "task.onnx", program="overridable")
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@cache
def names() -> dict[str, Any]:
    """What examples find; the captures are made once."""
    torch.manual_seed(0)
    images, pixels = torch.rand(4, 3, 16, 16), torch.rand(3, 6)
    ids = torch.randint(256, (2, 6))
    graph = gp.capture(ResidualNet().eval(), (images[:2],))
    axes = {"ids": {0: "batch", 1: "sequence"}}
    both = {"ids": {0: "texts", 1: "sequence"}, "pixels": {0: "batch"}}
    language = gp.capture(Writer().eval(), (ids,), dynamic_axes=axes, tokenizer=Bytes())
    return {
        "gp": gp,
        "torch": torch,
        "nn": nn,
        "Path": Path,
        "graph": graph,
        "images": images,
        "labels": torch.tensor([0, 1, 0, 1]),
        "language": language,
        "ids": ids,
        "tokenizer": language.tokenizer,
        "answering": gp.capture(Answering().eval(), (ids,), dynamic_axes=axes),
        "pairs": gp.capture(Pairs().eval(), (ids, pixels), dynamic_axes=both),
        "pixels": pixels,
    }


def examples(item: Any) -> list[doctest.Example]:
    own = vars(item).get("__doc__") if inspect.isclass(item) else item.__doc__
    return doctest.DocTestParser().get_examples(own or "")


def distinct() -> list[Any]:
    """One name for each example; those that export to ONNX take longer."""
    by_code: dict[str, str] = {}
    for name, item in PUBLIC.items():
        if code := "".join(one.source + one.want for one in examples(item)):
            by_code.setdefault(code, name)
    slow = pytest.mark.slow
    return [
        pytest.param(name, marks=slow if name.startswith("gp.backends.") else ())
        for name in by_code.values()
    ]


def test_every_public_name_has_an_example_of_few_lines() -> None:
    lines = {
        name: sum(one.source.count("\n") for one in examples(item)) for name, item in PUBLIC.items()
    }
    assert [name for name, count in lines.items() if not count] == []
    assert {name: count for name, count in lines.items() if count > LINES} == {}


@pytest.mark.xdist_group("docstrings")
@pytest.mark.parametrize("name", distinct())
def test_an_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    code, found = examples(PUBLIC[name]), dict(names())
    text = "".join(one.source for one in code)
    if re.search(r"\btask\b", text):
        found["task"] = small_task(found["graph"])
    for file in ("task.safetensors", "task.onnx"):
        if f'"{file}"' in text:
            Path(file).write_bytes(files()[file])
    test = doctest.DocTest(code, found, name, None, None, None)
    told: list[str] = []
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    doctest.DocTestRunner(optionflags=flags).run(test, out=told.append)
    assert told == [], "".join(told)
