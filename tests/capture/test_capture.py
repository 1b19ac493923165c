from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx, nn

import graphprog as gp
from graphprog.errors import CaptureError, DataError
from graphprog.passes.normalize.functionalize import mutates
from graphprog.passes.verify import verify
from tests.models.corner_models import Call, exported, plain_cnn, small
from tests.models.zoo import CASES, captured, cases
from tests.support.comparisons import equal


@pytest.mark.parametrize("name", cases(CASES))
def test_a_graph_is_its_model_bit_for_bit_at_any_batch_size(name: str) -> None:
    model, graph = captured(name)
    for batch in (1, 2, 5):
        args, kwargs = CASES[name].call(batch)
        assert equal(graph(*args, **kwargs), model(*args, **kwargs)), batch
    assert not [node for node in graph.code.nodes if mutates(node)]
    verify(graph, graph)


@pytest.mark.parametrize("name", cases(["transformer", "bert", "gpt2", "llama"]))
def test_a_graph_is_its_model_at_any_length(name: str) -> None:
    model, graph = captured(name)
    for length in (3, 11):
        ids = torch.randint(1, 90, (4, length))
        mask = torch.ones_like(ids)
        mask[1, 2:] = 0
        _, kwargs = CASES[name].call(2)
        kwargs |= {"input_ids": ids, "attention_mask": mask}
        with torch.no_grad():
            assert equal(graph(**kwargs), model(**kwargs))


def test_every_source_of_a_graph(tmp_path: Path) -> None:
    model, x = small()
    program = exported(model, x)
    torch.export.save(program, tmp_path / "residual_net.pt2")
    sources = {
        "module": gp.capture(model, (x,)),
        "exported": gp.capture(program),
        "file": gp.capture(tmp_path / "residual_net.pt2"),
        "text path": gp.capture(str(tmp_path / "residual_net.pt2")),
        "traced": gp.capture(fx.symbolic_trace(model), (x,)),
        "unlifted": gp.capture(program.module(), (x,)),
    }
    wide = torch.randn(5, 3, 16, 16)
    for name, graph in sources.items():
        assert equal(graph(wide), model(wide)), name
        assert graph.aliases["features"], name
        assert graph.weight_hash() == sources["module"].weight_hash(), name
    assert sources["file"].name == "residual_net"
    for name in ("exported", "file"):
        assert "hidden[2]" in sources[name].aliases, name


def test_the_model_is_left_as_it_was_found() -> None:
    model, x = small()
    model.train()
    model.blocks[1].eval()
    model.head.weight.requires_grad_(False)
    flags = [module.training for module in model.modules()]
    gradients = [parameter.requires_grad for parameter in model.parameters()]
    graph = gp.capture(model, (x,))
    gp.compile(graph, gp.Program([gp.Additive()])).train()
    assert flags == [module.training for module in model.modules()]
    assert gradients == [parameter.requires_grad for parameter in model.parameters()]
    assert all(p.requires_grad is False for p in graph.weights.source.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"y": {0: "batch"}}, "names an input 'y'; the inputs are x"),
        ({"x": {4: "batch"}}, r"shape \(3, 3, 16, 16\), no axis 4"),
        ({"x": {-1: "batch"}}, "no axis -1"),
    ],
)
def test_dynamic_axes_are_checked(axes: Any, message: str) -> None:
    model, x = small()
    with pytest.raises(CaptureError, match=message):
        gp.capture(model, (x,), dynamic_axes=axes)


def test_an_example_of_one_is_widened() -> None:
    model, x = small()
    graph = gp.capture(model, (x[:1],))
    assert graph.interfaces()["input:x"].type_text == "f32[B,3,16,16]"
    assert equal(graph(x), model(x))


def test_axes_may_be_named_and_vary_in_size() -> None:
    model = plain_cnn().eval()
    axes = {"input": {0: "batch", 2: "height", 3: "width"}}
    graph = gp.capture(model, (torch.randn(2, 3, 16, 16),), dynamic_axes=axes)
    assert graph.interfaces()["input:input"].type_text == "f32[B,3,H,W]"
    x = torch.randn(3, 3, 12, 22)
    assert equal(graph(x), model(x))
    program = gp.Program([gp.ResizePad(shape=(3, 8, 8))])
    with pytest.raises(gp.errors.ProgramError, match="varies in more than the batch"):
        gp.compile(graph, program)


def test_keywords_may_come_in_any_order() -> None:
    ids, mask, bias = torch.ones(2, 5).long(), torch.rand(2, 5), torch.rand(5)
    axes = {name: {0: "batch"} for name in ("ids", "mask")}
    graph = gp.capture(Call(), (ids,), {"bias": bias, "mask": mask}, axes)
    ids, mask = torch.ones(4, 5).long(), torch.rand(4, 5)
    assert equal(graph(ids, mask=mask, bias=bias), Call()(ids, mask, bias))
    assert equal(graph(ids, bias=bias, mask=mask), Call()(ids, mask, bias))
    with pytest.raises(DataError, match=r"takes \(ids, bias=, mask=\)"):
        graph(ids, mask, bias)


def test_one_tensor_given_twice_is_two_inputs() -> None:
    x = torch.randn(2, 5)
    graph = gp.capture(Call(), (x, x))
    left, right = torch.randn(3, 5), torch.randn(3, 5)
    assert equal(graph(left, right), left * right)


def test_constants_are_fixed_and_said_so() -> None:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor, factor: float, mode: str = "a") -> torch.Tensor:
            return x * factor if mode == "a" else x

    graph = gp.capture(Scaled(), (torch.randn(2, 3), 2.0), {"mode": "a"})
    x = torch.randn(3, 3)
    assert equal(graph(x, 2.0, mode="a"), x * 2)
    with pytest.raises(DataError, match=r"was 2\.0 at capture and is 3\.0 now"):
        graph(x, 3.0, mode="a")


class OnlyStrict(nn.Module):
    """Tracing with fake tensors fails on NumPy; the strict tracer knows it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.second(y + torch.from_numpy(x.numpy() * 2))


def test_the_second_tracer_names_calls_like_the_first() -> None:
    model = OnlyStrict().eval()
    graph = gp.capture(model, (torch.randn(2, 4),))
    assert set(graph.sites) >= {"first:in", "first:out", "second:in", "second:out"}
    x = torch.randn(3, 4)
    assert equal(graph(x), model(x))
