"""A constant moves into biases, other constants, or to where it is cheap; else it stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import graphprog as gp
from graphprog.errors import PassError
from graphprog.ir.printing import operator_name
from graphprog.passes.optimize.fold_additive import FoldAdditive
from graphprog.passes.verify import CHECKS

PATTERN = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(1))


class Added(nn.Module):
    """A pattern before other layers."""

    def __init__(self, *layers: nn.Module, pattern: torch.Tensor = PATTERN) -> None:
        super().__init__()
        self.pattern = nn.Parameter(pattern)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layers(x + self.pattern)
        return found


class Posed(nn.Module):
    """Patches with a class token, to which positions are added."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.places = nn.Parameter(torch.randn(1, 17, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(2).transpose(1, 2)
        return (torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places).tanh()


def norm(channels: int) -> nn.Module:
    made = nn.BatchNorm2d(channels)
    nn.init.normal_(made.running_mean)
    nn.init.uniform_(made.running_var, 0.5, 2.0)
    nn.init.normal_(made.weight)
    return made


def operators(graph: gp.Graph) -> list[str]:
    return [operator_name(node) for node in graph.code.nodes if node.op == "call_function"]


def folded(model: nn.Module, shape: tuple[int, ...] = (3, 16, 16), **more: Any) -> gp.Graph:
    """The folded graph, equal to the model."""
    graph = gp.capture(model.eval(), (torch.randn(2, *shape),), **more)
    found = FoldAdditive()(graph)
    x = torch.randn(5, *shape)
    torch.testing.assert_close(found(x), model(x), rtol=1e-4, atol=1e-5)
    for check in ("structure", "metadata", "polymorphism"):
        CHECKS[check](found, graph)
    return found


CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "strides": {"stride": 4},
    "padding": {"stride": 4, "padding": 2},
    "same on both sides only": {"stride": 3, "padding": (0, 1)},
    "groups": {"stride": 3, "groups": 3, "padding": 1},
    "dilation": {"stride": 4, "dilation": 2, "padding": 2},
    "no bias": {"stride": 4, "padding": 1, "bias": False},
    "padding by name": {"padding": "same"},
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_pattern_before_a_convolution_becomes_a_map_after_it(name: str) -> None:
    torch.manual_seed(0)
    outputs = 3 if "groups" in CONVOLUTIONS[name] else 2
    conv = nn.Conv2d(3, outputs, 3, **CONVOLUTIONS[name])
    names = operators(folded(Added(conv, nn.ReLU())))
    assert names[-3:] == [names[0], "add.Tensor", "relu"]
    assert len(names) == 3


def test_a_map_differs_at_a_padded_border() -> None:
    ones = torch.ones(3, 1, 1)
    conv = nn.Conv2d(3, 2, 3, stride=2, padding=1, bias=False)
    found = folded(Added(conv, nn.ReLU(), pattern=ones))
    (map_,) = (v for n, v in found.weights.source.named_buffers() if n.startswith("shifted"))
    expected = functional.conv2d(torch.ones(1, 3, 16, 16), conv.weight, None, 2, 1)
    torch.testing.assert_close(map_, expected.detach())
    assert not map_[0, :, 0, 0].allclose(map_[0, :, 4, 4])


def test_a_pattern_moves_through_norms_and_views_into_a_constant() -> None:
    torch.manual_seed(0)
    model = Added(nn.Conv2d(3, 8, 4, stride=4), norm(8), Posed())
    found = folded(model)
    assert operators(found).count("add.Tensor") == 1
    assert set(operators(found)) >= {"conv2d", "batch_norm", "cat"}


def test_the_same_at_all_positions_is_a_bias_for_any_size() -> None:
    torch.manual_seed(0)
    color = torch.randn(3, 1, 1)
    model = Added(nn.Conv2d(3, 8, 3), nn.ReLU(), pattern=color)
    found = folded(model, dynamic_axes={"x": {0: "B", 2: "H", 3: "W"}})
    assert operators(found) == ["conv2d", "relu"]
    x = torch.randn(2, 3, 9, 21)
    torch.testing.assert_close(found(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_a_vector_before_a_linear_layer_is_a_bias(bias: bool) -> None:
    torch.manual_seed(0)
    model = Added(nn.Linear(6, 5, bias=bias), nn.Tanh(), pattern=torch.randn(6))
    found = folded(model, (4, 6))
    assert operators(found) == ["linear", "tanh"]


class Differenced(nn.Module):
    """Normalization written out: a mean is subtracted, a constant minus the value follows."""

    def __init__(self) -> None:
        super().__init__()
        self.pattern, self.mean, self.std = (nn.Parameter(torch.rand(6) + 0.5) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x - self.pattern) / self.std * 2.0
        return (self.mean - x).tanh()


def test_constants_are_summed_with_their_signs_and_factors() -> None:
    found = folded(Differenced(), (4, 6))
    assert operators(found) == ["div.Tensor", "mul.Tensor", "sub.Tensor", "tanh"]


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pattern = nn.Parameter(torch.randn(6))
        self.layer = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x + self.pattern
        return self.layer(y) * y


REFUSED: dict[str, tuple[nn.Module, dict[str, Any], str]] = {
    "read twice": (Branches(), {"shape": (4, 6)}, "several operations read it"),
    "not affine": (
        Added(nn.Softmax(-1), nn.Linear(16, 2)),
        {},
        "softmax is not affine",
    ),
    "reflected": (
        Added(nn.Conv2d(3, 1, 3, stride=2, padding=1, padding_mode="reflect")),
        {},
        "pads with entries of the value",
    ),
    "varying sizes": (
        Added(nn.Conv2d(3, 1, 3, stride=2, padding=1), pattern=torch.ones(3, 1, 1)),
        {"dynamic_axes": {"x": {0: "B", 2: "H", 3: "W"}}},
        "sizes vary, and the border of a padded convolution differs",
    ),
    "dearer": (Added(nn.Conv2d(3, 64, 3), nn.ReLU()), {}, "relu is not affine"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_constants_stay_and_the_reason_is_told(name: str) -> None:
    model, more, reason = REFUSED[name]
    shape = more.pop("shape", (3, 16, 16))
    graph = gp.capture(model.eval(), (torch.randn(2, *shape),), **more)
    assert FoldAdditive()(graph).text == graph.text
    (found,) = FoldAdditive().refusals(graph)
    assert "no cheaper place" in found
    assert reason in found


def test_a_program_is_frozen_first() -> None:
    graph = gp.capture(nn.Linear(4, 2), (torch.rand(2, 4),))
    task = gp.compile(graph, gp.Program([gp.Additive()]))
    with pytest.raises(PassError, match="fold-additive changes the source"):
        FoldAdditive()(task.graph)


def test_interfaces_without_the_constant_vanish_and_others_keep_their_values() -> None:
    torch.manual_seed(0)
    model = Added(nn.Conv2d(3, 8, 4, stride=4), norm(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2))
    graph = gp.capture(model.eval(), (torch.randn(2, 3, 16, 16),))
    found = FoldAdditive()(graph)
    assert set(graph.sites) - set(found.sites) == {"layers.0:in", "layers:in"}
    x = torch.randn(3, 3, 16, 16)
    keys = list(found.sites)
    for key, value in graph.evaluate(keys, (x,)).items():
        torch.testing.assert_close(found.evaluate([key], (x,))[key], value, rtol=1e-4, atol=1e-5)
