"""Examples and a query on one canvas, against the canvas put together by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import graphprog as gp
from graphprog.errors import ProgramError
from graphprog.spec.registry import format_spec, parse_spec


class Painter(nn.Module):
    """An image becomes an image: every pixel sees the whole of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 5, padding=2)
        self.all = nn.Linear(8, 8)
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        hidden = self.first(image).relu()
        seen = self.all(hidden.mean((2, 3)))[:, :, None, None]
        return self.last(hidden + seen)


torch.manual_seed(0)
MODEL = Painter().eval().requires_grad_(False)
GRAPH = gp.capture(MODEL, (torch.rand(2, 3, 24, 20),))
OUTPUT = f"output:{GRAPH.outputs[0]}"
PAIRS = torch.rand(2, 2, 3, 8, 10)
QUERY = torch.rand(4, 3, 8, 10)


def by_hand(query: Tensor, pairs: Tensor, blank: float = 0.0) -> Tensor:
    """The grid of cells of 8 by 10 pixels on a canvas of 24 by 20."""
    rows = [torch.cat([pair[0], pair[1]], 2) for pair in pairs]
    board = torch.cat(rows, 1).expand(len(query), -1, -1, -1)
    last = torch.cat([query, torch.full_like(query, blank)], 3)
    whole = torch.cat([board, last], 2)
    return functional.pad(whole, (0, 20 - whole.shape[3], 0, 24 - whole.shape[2]), value=blank)


def test_a_query_is_answered_in_the_place_of_the_blank(tmp_path: Path) -> None:
    canvas = gp.ImageGrid((3, 8, 10), examples=PAIRS)
    task = gp.compile(GRAPH, gp.Program([canvas], align=canvas.answer(OUTPUT)))
    found = task(QUERY)
    with torch.no_grad():
        wanted = MODEL(by_hand(QUERY, PAIRS))[:, :, 16:24, 10:20]
    assert torch.equal(found, wanted)
    gp.save(task, tmp_path / "canvas.safetensors")
    assert torch.equal(gp.load(tmp_path / "canvas.safetensors", GRAPH)(QUERY), wanted)
    assert gp.backends.onnx.export(task, tmp_path / "canvas.onnx", inputs=(QUERY,)).passed


def test_examples_matter_and_are_resized_with_the_query() -> None:
    canvas = gp.ImageGrid(
        (1, 5, 5), size=(8, 10), examples=PAIRS[:1, :, :1, :4], interpolation="nearest"
    )
    query = torch.rand(2, 1, 5, 5)
    task = gp.compile(GRAPH, gp.Program([canvas], align=canvas.answer(OUTPUT)))
    resized = functional.interpolate(query, (8, 10), mode="nearest").expand(-1, 3, -1, -1)
    shown = functional.interpolate(PAIRS[0, :, :1, :4], (8, 10), mode="nearest").expand(
        -1, 3, -1, -1
    )
    with torch.no_grad():
        wanted = MODEL(by_hand(resized, shown[None]))[:, :, 8:16, 10:20]
    assert torch.allclose(task(query), wanted, atol=1e-6)
    other = dataclasses.replace(canvas, examples=gp.Fixed(PAIRS[1:, :, :1, :4]))
    again = gp.compile(GRAPH, gp.Program([other], align=canvas.answer(OUTPUT)))
    assert not torch.allclose(again(query), wanted, atol=1e-3)


def test_cells_stand_apart_and_the_rest_is_filled() -> None:
    canvas = gp.ImageGrid((3, 6, 8), examples=PAIRS[:1, :, :, :6, :8], gap=2, fill=(0.5, 0.5, 0.5))
    assert canvas.corner == (8, 10)
    task = gp.compile(GRAPH, gp.Program([canvas]))
    board = torch.full((2, 3, 24, 20), 0.5)
    query = torch.rand(2, 3, 6, 8)
    board[:, :, :6, :8], board[:, :, :6, 10:18] = PAIRS[0, 0, :, :6, :8], PAIRS[0, 1, :, :6, :8]
    board[:, :, 8:14, :8] = query
    with torch.no_grad():
        assert torch.equal(task(query), MODEL(board))


def test_normalized_in_the_graph_the_blank_is_the_mean() -> None:
    contract = gp.Contract(space="normalized", mean=0.4, std=0.2)
    canvas = gp.ImageGrid((3, 8, 10), examples=PAIRS)
    task = gp.compile(GRAPH, gp.Program([canvas], contract=contract))
    with torch.no_grad():
        wanted = MODEL((by_hand(QUERY, PAIRS, 0.4) - 0.4) / 0.2)
    assert torch.allclose(task(QUERY), wanted, atol=1e-5)


def test_the_spec_survives_text() -> None:
    canvas = gp.ImageGrid((3, 8, 10), examples=PAIRS, gap=1)
    tensors: dict[str, Tensor] = {}
    assert parse_spec(format_spec(canvas, tensors), tensors) == canvas


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"examples": PAIRS[:, 0]}, "examples of shape"),
        ({"examples": [1]}, "examples must be a tensor"),
        ({"examples": PAIRS, "gap": -1}, "gap must be"),
        ({"examples": PAIRS, "gap": 3}, "does not fit"),
        ({"examples": PAIRS[:, :, :2]}, "channels"),
        ({"examples": PAIRS, "fill": (0.1, 0.2)}, "channels"),
    ],
)
def test_what_cannot_be_laid_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        gp.compile(GRAPH, gp.Program([gp.ImageGrid((3, 8, 10), **options)]))
