from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.errors import CaptureError, FileError
from tests.models.corner_models import Call, exported, plain_cnn, small
from tests.support.comparisons import equal


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = plain_cnn()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.part(x)
        if y.sum() > 0:
            return y
        return -y


class Pooling(nn.Module):
    """An operation that takes numbers, given half of the length."""

    def __init__(self, halves: bool) -> None:
        super().__init__()
        self.halves = halves

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.halves:
            return nn.functional.adaptive_avg_pool1d(x, x.shape[2] // 2)
        return x.view(len(x), 3, 2, x.shape[2] // 2).mean(2)  # for even lengths


def test_an_axis_that_tracing_fixed_by_a_number_computed_from_it_is_refused() -> None:
    x, axes = torch.randn(2, 3, 8), {"x": {0: "batch", 2: "length"}}
    with pytest.raises(CaptureError, match=r"axis 2 of x.* on \(L//2\) = 4"):
        gp.capture(Pooling(halves=True), (x,), dynamic_axes=axes)
    graph = gp.capture(Pooling(halves=True), (x,), dynamic_axes={"x": {0: "batch"}})
    assert graph(torch.randn(3, 3, 8)).shape == (3, 3, 4)
    even = gp.capture(Pooling(halves=False), (x,), dynamic_axes=axes)
    assert even(torch.randn(3, 3, 12)).shape == (3, 3, 6)


def test_a_model_that_cannot_be_captured_is_explained_and_left_alone() -> None:
    model = Branching().train()
    with pytest.raises(CaptureError) as caught:
        gp.capture(model, (torch.randn(2, 3, 8, 8),))
    text = str(caught.value)
    assert f"at {__file__}" in text
    assert "if y.sum() > 0:" in text
    assert "non-strict tracing: " in text
    assert "strict tracing: Unsupported" in text
    assert "use torch.where" in text
    assert caught.value.__cause__ is not None
    assert all(module.training for module in model.modules())
    hooks = [(m._forward_hooks, m._forward_pre_hooks) for m in model.modules()]
    assert not any(any(pair) for pair in hooks)


class FixedBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(8, -1)


def test_a_fixed_batch_is_refused_unless_asked_for() -> None:
    x = torch.randn(8, 4)
    with pytest.raises(CaptureError, match=r"(?s)fixed the batch size: x has shape \(8, 4\).*view"):
        gp.capture(FixedBatch(), (x,))
    with pytest.raises(CaptureError, match=r"_refused.py:\d+: return x.view\(8, -1\)"):
        gp.capture(FixedBatch(), (x,), dynamic_axes={"x": {0: "batch"}})
    assert equal(gp.capture(FixedBatch(), (x,), dynamic_axes={"x": {}})(x), x)


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)
        return x + self.count


class Controlled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,))


class Unnamed(nn.Module):
    def forward(self, x: torch.Tensor, **others: torch.Tensor) -> torch.Tensor:
        return x + others["y"]


class Autocast(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return x @ x.T


X = torch.randn(2, 3)


@pytest.mark.parametrize(
    ("model", "args", "kwargs", "message"),
    [
        (Stateful(), (X,), {}, "writes to its own tensor count"),
        (Controlled(), (X,), {}, r"(?s)control flow.*torch\.where"),
        (Unnamed(), (X,), {"y": X}, "has no name for y"),
        (Autocast(), (X,), {}, "under autocast"),
        (Call(), (X,), {}, r"(?s)cannot be called with the example: missing.*'mask'"),
        (Call(), (X, X, X, X), {}, "too many positional arguments"),
        (Call(), (1, 2), {}, "needs example tensors"),
        (lambda x: x, (X,), {}, "not function"),
    ],
)
def test_what_cannot_be_captured_is_refused(
    model: Any, args: Any, kwargs: Any, message: str
) -> None:
    with pytest.raises(CaptureError, match=message):
        gp.capture(model, args, kwargs)


def test_a_program_exported_in_train_mode_is_refused() -> None:
    program = exported(nn.BatchNorm1d(3).train(), X)
    with pytest.raises(CaptureError, match=r"(?s)num_batches_tracked.*eval mode"):
        gp.capture(program)
    with pytest.raises(CaptureError, match="its export fixed them"):
        gp.capture(exported(nn.Linear(3, 3), X), dynamic_axes={"input": {0: "batch"}})


def test_broken_files_are_refused(tmp_path: Path) -> None:
    """What a file may hold is tested beside the reader of such files."""
    good = tmp_path / "good.pt2"
    torch.export.save(exported(*small()), good)
    (tmp_path / "empty.pt2").write_bytes(b"")
    (tmp_path / "cut.pt2").write_bytes(good.read_bytes()[:-200])
    for name in ("absent.pt2", "empty.pt2", "cut.pt2"):
        with pytest.raises(FileError, match=name):
            gp.capture(tmp_path / name)
    assert gp.capture(good).placeholders
