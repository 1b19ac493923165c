"""Examples and axes that cannot be traced, and what a failed capture prints."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.errors import CaptureError

X = torch.rand(2, 4)


@pytest.mark.parametrize(
    "axes", [{"input": [0, 1]}, {"input": 0}, {"input": {"0": "batch"}}, {"input": {0: 1}}, ["x"]]
)
def test_axes_that_are_not_named_by_numbers_are_refused(axes: Any) -> None:
    with pytest.raises(CaptureError) as failure:
        gp.capture(nn.Linear(4, 3), (X,), dynamic_axes=axes)
    assert f"dynamic_axes must name axes by their numbers, not {axes!r}" in str(failure.value)
    assert 'dynamic_axes={"input": {0: "batch", 1: "sequence"}}' in str(failure.value)


@pytest.mark.parametrize(
    ("model", "example", "message"),
    [
        (nn.Linear(4, 3), X.to("meta"), "input 'input' is on the meta device"),
        (nn.Linear(4, 3), X.to_sparse(), "input 'input' is sparse"),
        (nn.Linear(4, 3, device="meta"), X, "weights of Linear have no values: weight, bias"),
    ],
)
def test_examples_and_weights_without_values_are_refused(
    model: nn.Module, example: torch.Tensor, message: str
) -> None:
    with pytest.raises(CaptureError, match=message):
        gp.capture(model, (example,))


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_a_failed_capture_prints_nothing_but_its_error(capfd: pytest.CaptureFixture[str]) -> None:
    for model in (Branching(), nn.Linear(3, 2)):
        with pytest.raises(CaptureError) as failure:
            gp.capture(model, (X,))
        assert len(str(failure.value).splitlines()) <= 12
    assert capfd.readouterr() == ("", "")
