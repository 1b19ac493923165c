"""Inserted entries as parts of whole programs: several at once, trained, stored, exported."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.ir.graph import Graph
from graphprog.passes.erase import EraseProgram
from tests.models.prompts.inserted import entries, inserted, part
from tests.models.zoo import images
from tests.support.oracle import changed


class Stack(nn.Module):
    """Blocks over [B, S, d] whose inputs can be changed by hooks; one may read another's."""

    def __init__(self) -> None:
        super().__init__()
        from tests.models.networks.corner import Layer

        self.blocks = nn.ModuleList(Layer(16, 2) for _ in range(3))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


@cache
def stack(varying: bool) -> tuple[nn.Module, Graph]:
    torch.manual_seed(0)
    model = Stack().eval().requires_grad_(False)
    axes = {"x": {0: "batch", 1: "sequence"}} if varying else None
    return model, gp.capture(model, (torch.randn(6, 6, 16),), dynamic_axes=axes)


def sequence(batch: int = 3, length: int = 6) -> Tensor:
    return torch.randn(batch, length, 16, generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("varying", [False, True], ids=["fixed", "varying"])
def test_entries_at_several_interfaces_add_up(varying: bool) -> None:
    model, graph = stack(varying)
    news = [entries(2, 16, 1), entries(3, 16, 2), entries(1, 16, 3)]
    places = (("blocks.0:in", 0), ("blocks.1:in", 1), ("blocks.2:out", -1))
    changes = {at: inserted(new, offset) for (at, offset), new in zip(places, news, strict=True)}
    x = sequence(3, 8 if varying else 6)
    results = []
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        parts = [part(*places[i][:1], news[i], places[i][1], name=f"part{i}") for i in order]
        task = gp.compile(graph, gp.Program(parts))
        results.append(task(x))
        with task.disabled():
            assert torch.equal(task(x), model(x))
    for result in results:
        assert torch.equal(result, changed(model, changes, (x,), {}))


@pytest.mark.parametrize("varying", [False, True], ids=["fixed", "varying"])
def test_two_insertions_at_one_interface_lie_one_behind_the_other(varying: bool) -> None:
    model, graph = stack(varying)
    one, two = entries(2, 16, 1), entries(3, 16, 2)
    task = gp.compile(graph, gp.Program([part("blocks.1:in", one, 0), part("blocks.1:in", two, 1)]))
    x = sequence()
    both = {"blocks.1:in": lambda value: inserted(two, 1)(inserted(one, 0)(value))}
    assert torch.equal(task(x), changed(model, both, (x,), {}))


def test_a_value_is_changed_among_inserted_entries() -> None:
    model, graph = stack(True)
    new = entries(2, 16)
    shift = gp.Additive(at="blocks.2:in", value=gp.Fixed(torch.full((16,), 0.5)))
    task = gp.compile(graph, gp.Program([part("blocks.1:in", new, 0), shift]))
    x = sequence(2, 9)
    changes = {"blocks.1:in": inserted(new, 0), "blocks.2:in": lambda value: value + 0.5}
    assert torch.equal(task(x), changed(model, changes, (x,), {}))


def test_without_entries_the_source_is_bit_for_bit_the_same() -> None:
    model, graph = stack(True)
    for at in ("input", "hidden[0]", "hidden[2]"):
        task = gp.compile(graph, gp.Program([gp.Concatenative(at=at, length=0)]))
        assert torch.equal(task(sequence(2, 9)), model(sequence(2, 9)))


def test_erasing_gives_the_text_of_the_source_back() -> None:
    for varying in (False, True):
        _, graph = stack(varying)
        parts = [part("blocks.0:in", entries(2, 16), 0), part("blocks.2:in", entries(1, 16), 2)]
        task = gp.compile(graph, gp.Program(parts))
        erased = EraseProgram().run(task.graph)
        assert erased.bare_text == graph.bare_text


def test_gradient_reaches_the_entries_and_nothing_else() -> None:
    _, graph = stack(True)
    task = gp.compile(graph, gp.Program([gp.Concatenative(at="hidden[0]", length=4)]))
    x = sequence()
    task(x).square().sum().backward()
    trained = {name for name, value in task.named_parameters() if value.grad is not None}
    assert trained == {"program.concatenative.value"}
    assert task.program.concatenative.value.grad.abs().min() > 0
    assert x.grad is None


def test_entries_survive_storing_and_copying(tmp_path: Path) -> None:
    _, graph = stack(True)
    task = gp.compile(graph, gp.Program([gp.Concatenative(at="hidden[0]", length=4)]), seed=3)
    x = sequence(2, 7)
    gp.save(task, tmp_path / "program")
    assert torch.equal(gp.load(tmp_path / "program", graph)(x), task(x))
    twin = copy.deepcopy(task)
    assert torch.equal(twin(x), task(x))
    with torch.no_grad():
        twin.program.concatenative.value.add_(1)
    assert not torch.equal(twin(x), task(x))


@pytest.mark.slow
@pytest.mark.parametrize("at", ["input", "hidden[1]"])
def test_onnx_runtime_agrees_at_another_batch_and_length(at: str, tmp_path: Path) -> None:
    import onnxruntime

    _, graph = stack(True)
    task = gp.compile(graph, gp.Program([gp.Concatenative(at=at, length=3, offset=1)]))
    file = tmp_path / "model.onnx"
    dims = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    torch.onnx.export(task, (sequence(2, 6),), file, dynamo=True, dynamic_shapes=((dims,),))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for batch, length in ((2, 6), (5, 9)):
        x = sequence(batch, length)
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), task(x), rtol=1e-4, atol=1e-5)


TOWERS = (("vision", "image", 0), ("text", "caption", 1))


class Towers(nn.Module):
    """Two encoders of sequences of equal shapes, whose means are compared."""

    def __init__(self) -> None:
        super().__init__()
        from tests.models.networks.corner import Layer

        self.vision = nn.ModuleList(Layer(16, 2) for _ in range(2))
        self.text = nn.ModuleList(Layer(16, 2) for _ in range(3))

    def forward(self, image: Tensor, caption: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        for block in self.vision:
            image = block(image)
        for block in self.text:
            caption = block(caption)
        return image.mean(1) @ caption.mean(1).t(), image.mean(1), caption.mean(1)


@cache
def towers(varying: bool) -> tuple[nn.Module, Graph]:
    torch.manual_seed(0)
    model = Towers().eval().requires_grad_(False)
    axes = {0: "batch", 1: "length"}
    return model, gp.capture(
        model,
        (sequence(6), sequence(6)),
        dynamic_axes={"image": axes, "caption": axes} if varying else None,
    )


@pytest.mark.parametrize("varying", [False, True], ids=["fixed", "varying"])
@pytest.mark.parametrize("tower", TOWERS, ids=lambda tower: tower[0])
def test_the_other_tower_is_left_as_it_is(tower: tuple[str, str, int], varying: bool) -> None:
    name, _, number = tower
    model, graph = towers(varying)
    new = entries(3, 16)
    at = f"{name}.1:in"
    task = gp.compile(graph, gp.Program([part(at, new, 1)]))
    images, captions = sequence(2), sequence(2) + 1
    want = changed(model, {at: inserted(new, 1)}, (images, captions), {})
    found = task(images, captions)
    plain = model(images, captions)
    for one, two in zip(found, want, strict=True):
        assert torch.equal(one, two)
    assert torch.equal(found[2 - number], plain[2 - number])
    other = TOWERS[1 - number][0]
    for key, node in graph.nodes.items():
        stack = node.meta.get("nn_module_stack") or {}
        if any(str(path[0]).startswith(other) for path in stack.values()):
            assert str(task.graph.nodes[key].args) == str(node.args)
            assert str(task.graph.nodes[key].meta["val"]) == str(node.meta["val"])


@pytest.mark.parametrize("at", ["input", "hidden[0]"])
@pytest.mark.parametrize("kind", ["conv", "residual"])
def test_border_pixels_are_four_extensions_of_an_input(kind: str, at: str) -> None:
    width = 3 if at == "input" else 8
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        *([nn.MaxPool2d(2)] if kind == "residual" else []),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    torch.manual_seed(0)
    model = model.eval().requires_grad_(False)
    graph = gp.capture(model, images(8)(2)[0])
    at = at if at == "input" else "0:out"
    top, bottom = torch.randn(width, 2, 8), torch.randn(width, 1, 8)
    left, right = torch.randn(width, 11, 1), torch.randn(width, 11, 2)
    parts = [
        gp.Concatenative(at=at, name=name, length=length, axis=axis, offset=offset, value=value)
        for name, length, axis, offset, value in (
            ("top", 2, 2, 0, gp.Fixed(top)),
            ("bottom", 1, 2, -1, gp.Fixed(bottom)),
            ("left", 1, 3, 0, gp.Fixed(left)),
            ("right", 2, 3, -1, gp.Fixed(right)),
        )
    ]
    task = gp.compile(graph, gp.Program(parts))
    x = images(8)(3)[0][0]

    def framed(value: Tensor) -> Tensor:
        count = len(value)
        value = torch.cat([top.expand(count, -1, -1, -1), value], 2)
        value = torch.cat([value, bottom.expand(count, -1, -1, -1)], 2)
        return torch.cat(
            [left.expand(count, -1, -1, -1), value, right.expand(count, -1, -1, -1)], 3
        )

    want = model(framed(x)) if at == "input" else model[1:](framed(model[0](x)))
    assert torch.equal(task(x), want)
