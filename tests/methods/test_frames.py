"""Learned patterns on images, against their formulas; and the table of methods."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import graphprog as gp
from tools.methods_table import PAGE, page

SIDE = 16


@pytest.fixture(scope="module")
def source() -> tuple[nn.Module, gp.Graph]:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 7 * 7, 9)
    model = nn.Sequential(*layers).eval().requires_grad_(False)
    return model, gp.capture(model, (torch.rand(2, 3, SIDE, SIDE),))


def canvas(x: Tensor, first: int) -> Tensor:
    """Images on a canvas of zeros, from a row and column on."""
    whole = torch.zeros(len(x), 3, SIDE, SIDE)
    whole[:, :, first : first + x.shape[2], first : first + x.shape[3]] = x
    return whole


def outside(first: int, last: int) -> Tensor:
    """One where a pattern is: not in the rows and columns of the image."""
    mask = torch.ones(SIDE, SIDE)
    mask[first:last, first:last] = 0
    return mask


def resized(x: Tensor, size: int) -> Tensor:
    return functional.interpolate(x, (size, size), mode="bilinear", align_corners=False)


def patch(first: tuple[int, int], size: int) -> Tensor:
    mask = torch.zeros(SIDE, SIDE)
    mask[first[0] : first[0] + size, first[1] : first[1] + size] = 1
    return mask


def same(x: Tensor) -> Tensor:
    return x


SMALL, LARGE = (torch.rand(5, 3, side, side) for side in (8, SIDE))
SHAPE = (3, 8, 8)
PADDED = SMALL, canvas(SMALL, 4), outside(4, 12)
CASES: dict[str, tuple[dict[str, object], tuple[Tensor, Tensor, Tensor], Callable]] = {
    "adversarial_reprogramming": ({"shape": SHAPE}, PADDED, torch.tanh),
    **dict.fromkeys(
        ("ilm_vp", "flm_vp", "rlm_vp", "blm"), ({"shape": SHAPE}, PADDED, torch.sigmoid)
    ),
    "evp": (
        {"shape": SHAPE, "size": 10},
        (SMALL, canvas(resized(SMALL, 10), 3), outside(3, 13)),
        same,
    ),
    "full_pattern": (
        {"shape": SHAPE, "size": SIDE},
        (SMALL, resized(SMALL, SIDE), torch.ones(SIDE, SIDE)),
        same,
    ),
    "frame_pattern": (
        {"shape": SHAPE, "size": SIDE, "width": 2},
        (SMALL, resized(SMALL, SIDE), outside(2, 14)),
        same,
    ),
    "vp": ({"width": 3}, (LARGE, LARGE, outside(3, 13)), same),
    "vp_patch": ({"size": 4, "corner": (1, 2)}, (LARGE, LARGE, patch((1, 2), 4)), same),
}
"""Options of a method; an example, where it is put, and where the pattern is; and its range."""


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_patterns(source: tuple[nn.Module, gp.Graph], name: str) -> None:
    model, graph = source
    options, (x, placed, mask), squash = CASES[name]
    task = gp.compile(graph, gp.Program(getattr(gp.methods, name)(**options)))
    ((key, pattern),) = task.program_state().items()
    task.load_program_state({key: torch.randn_like(pattern)})
    (pattern,) = task.program_state().values()
    torch.testing.assert_close(task(x), model(placed + squash(pattern) * mask))


def test_every_method_has_a_record() -> None:
    records = gp.methods.table()
    assert set(records) == set(gp.methods.__all__)
    for name, record in records.items():
        text = getattr(gp.methods, name).__doc__
        assert record.venue.split()[-1] in text or "PEFT" in text, name


def test_the_page_has_the_table() -> None:
    written = Path(PAGE).read_text(encoding="utf-8")
    assert written == page(), "write it again: python -m tools.methods_table"
