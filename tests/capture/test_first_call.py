"""Models that make tensors at their first call are called once, and then captured."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.errors import CaptureError

X = torch.rand(3, 4)


class Making(nn.Module):
    """Has a buffer that is declared and empty, or none."""

    def __init__(self, declared: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        if declared:
            self.register_buffer("mask", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if getattr(self, "mask", None) is None:
            self.register_buffer("mask", torch.linspace(0, 1, x.shape[1]))
        return self.linear(x) * self.mask


class Growing(nn.Module):
    """Makes a layer for the width that it meets."""

    linear: nn.Module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "linear"):
            self.linear = nn.Linear(int(x.shape[1]), 2)
        return self.linear(x)


class Remembering(nn.Module):
    """Adds what it saw at the call before."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x if self.last is None else x + self.last
        self.last = x
        return y


@pytest.mark.parametrize(
    ("make", "name"),
    [(lambda: Making(True), "mask"), (lambda: Making(False), "mask"), (Growing, "linear.weight")],
)
def test_what_the_first_call_makes_is_captured(make: type[nn.Module], name: str) -> None:
    model = make().eval()
    graph = gp.capture(model, (X,))
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert type(held[name]) in (torch.Tensor, nn.Parameter)  # not a value that only tracing knows
    source = graph.weights.source.state_dict()
    assert source[name].data_ptr() == held[name].data_ptr()
    x = torch.rand(5, 4)
    assert graph(x).equal(model(x))


def test_a_model_that_keeps_state_between_calls_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"makes last at its first call.*keeps state"):
        gp.capture(Remembering().eval(), (X,))


def test_hooks_are_removed_and_other_models_stay_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(4, 2)).eval()
    before = {module: dict(vars(module)) for module in model.modules()}
    gp.capture(model, (X,))
    assert {module: dict(vars(module)) for module in model.modules()} == before
    assert not model._forward_hooks
    assert not model._forward_hooks_always_called
