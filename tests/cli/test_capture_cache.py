"""Captures that are kept between calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.cli.capture_cache import identity
from graphprog.cli.models import open_model
from graphprog.utils.files import cache_folder


class Scaled(nn.Module):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)
        self.scale = scale
        self.names = {"one", "two", "three"}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * self.scale


def source(model: nn.Module | None = None, **changes: Any) -> gp.sources.Source:
    given = {"args": (torch.zeros(2, 4),), "hints": {"mean": (0.5,)}, **changes}
    return gp.sources.Source((model or Scaled()).eval(), **given)


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that makes the same model each time, and a cache of its own."""
    monkeypatch.setenv("GRAPHPROG_CACHE", str(tmp_path / "kept graphs"))
    monkeypatch.setattr(gp.sources, "open_source", lambda name: source())


def kept() -> list[Path]:
    return sorted(cache_folder().glob("*"))


def test_a_capture_is_kept_and_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_model("timm:any")
    assert len(kept()) == 1
    with monkeypatch.context() as patch:
        patch.setattr(gp, "capture", None)
        again = open_model("timm:any")
    assert again.fingerprint == first.fingerprint
    assert again.hints == first.hints == {"mean": (0.5,)}
    x = torch.rand(5, 4)
    assert torch.equal(again(x), Scaled()(x))
    kept()[0].write_bytes(b"damaged")
    assert open_model("timm:any").fingerprint == first.fingerprint
    assert gp.Graph.load(kept()[0]).fingerprint == first.fingerprint


def test_nothing_is_kept_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gp, "capture", lambda name: f"captured {name}")
    found: object = open_model("timm:any", no_cache=True)
    assert found == "captured timm:any"
    found = open_model("package.module:factory")  # what it depends on is not known
    assert found == "captured package.module:factory"
    assert kept() == []


def test_what_decides_a_capture_is_in_its_identity() -> None:
    same = identity(source())
    assert identity(source()) == same
    other = Scaled()
    with torch.no_grad():
        other.layer.bias[0] += 1
    for changed in (
        source(other),
        source(Scaled(2.0)),
        source(nn.Linear(4, 3)),
        source(args=(torch.zeros(3, 4),)),
        source(hints={}),
        source(dynamic_axes={"x": {}}),
    ):
        assert identity(changed) != same


def test_a_model_that_cannot_be_pickled_is_captured_each_time() -> None:
    model = Scaled()
    model.scale = lambda: 1  # type: ignore[assignment]
    assert identity(source(model)) != identity(source(model))


def test_the_cache_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    open_model("timm:any")
    size = kept()[0].stat().st_size
    monkeypatch.setenv("GRAPHPROG_CACHE_BYTES", str(size + 100))
    monkeypatch.setattr(gp.sources, "open_source", lambda name: source(Scaled(2.0)))
    first = kept()
    open_model("timm:any")
    assert len(kept()) == 1
    assert kept() != first
    monkeypatch.setenv("GRAPHPROG_CACHE_BYTES", "0")
    monkeypatch.setattr(gp.sources, "open_source", lambda name: source(Scaled(3.0)))
    open_model("timm:any")
    assert kept() == []
