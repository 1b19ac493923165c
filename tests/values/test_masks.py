from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import graphprog as gp
from graphprog.errors import ProgramError
from graphprog.spec.registry import format_spec, parse_spec
from tests.models.zoo import captured


def test_published_counts_of_patterns() -> None:
    frame = gp.masks.border(width=30).tensor((3, 224, 224))
    assert int(frame.sum()) == 69_840
    for inner in (32, 129, 200):
        padding = gp.masks.border(inner=inner).tensor((3, 224, 224))
        assert int(padding.sum()) == 3 * (224**2 - inner**2)
        assert padding.shape == (3, 224, 224)


@pytest.mark.parametrize(("inner", "before", "after"), [(32, 96, 96), (129, 48, 47), (224, 0, 0)])
def test_of_an_odd_rest_the_front_gets_the_extra_entry(inner: int, before: int, after: int) -> None:
    mask = gp.masks.border(inner=inner).tensor((1, 224, 224))[0]
    hole = (mask == 0).nonzero()
    for axis in (0, 1):
        assert int(hole[:, axis].min()) == before
        assert 223 - int(hole[:, axis].max()) == after


def test_a_frame_of_half_the_canvas_or_more_covers_it() -> None:
    for width in (8, 9, 100):
        assert gp.masks.border(width=width).tensor((3, 16, 16)).all()
    assert gp.masks.border(width=7).tensor((3, 16, 16)).sum() == 3 * (256 - 4)


def test_boxes_along_other_axes() -> None:
    wave = gp.masks.border(inner=(10,)).tensor((2, 16))
    assert wave.sum(1).tolist() == [6, 6]
    patch = gp.masks.patch(2, corner=(1, 3)).tensor((3, 5, 6))
    assert patch.sum() == 12
    assert patch[:, 1:3, 3:5].all()
    assert gp.masks.patch((4,), corner=(2,)).tensor((3, 6)).sum() == 12
    assert gp.masks.full().tensor((2, 3)).all()


def test_a_given_mask_broadcasts() -> None:
    row = torch.tensor([0.0, 1.0, 0.5])
    assert torch.equal(gp.masks.given(row).tensor((2, 3)), row.expand(2, 3))
    own = gp.masks.given(row)
    row.zero_()
    assert own.tensor((3,))[1] == 1, "a mask keeps a copy"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gp.masks.border(), "exactly one"),
        (lambda: gp.masks.border(inner=3, width=3), "exactly one"),
        (lambda: gp.masks.border(inner=17).tensor((3, 16, 16)), "does not fit a canvas"),
        (lambda: gp.masks.border(width=-1).tensor((3, 16, 16)), "does not fit a canvas"),
        (lambda: gp.masks.border(inner=3).tensor((16,)), "has fewer than 2 axes"),
        (lambda: gp.masks.patch(3, corner=(0, 14)).tensor((3, 16, 16)), "exceeds the canvas"),
        (lambda: gp.masks.patch(3, corner=(0, 1)).tensor((16,)), "has fewer than 2 axes"),
        (lambda: gp.masks.patch((3,), corner=(0, 1)), "do not match"),
        (lambda: gp.masks.patch(3, corner=(0, -1)), "do not match"),
        (lambda: gp.masks.given(torch.ones(4)).tensor((3,)), "does not broadcast"),
    ],
)
def test_masks_that_make_no_sense(make: Any, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        make()


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
    inner=st.tuples(st.integers(0, 12), st.integers(0, 12)),
)
def test_a_border_is_the_canvas_without_its_box(
    shape: tuple[int, int, int], inner: tuple[int, int]
) -> None:
    mask = gp.masks.border(inner=inner)
    tensors: dict[str, torch.Tensor] = {}
    assert parse_spec(format_spec(mask, tensors), tensors) == mask
    if inner[0] > shape[1] or inner[1] > shape[2]:
        with pytest.raises(ProgramError):
            mask.tensor(shape)
        return
    values = mask.tensor(shape)
    assert values.shape == shape
    assert int((values == 0).sum()) == shape[0] * inner[0] * inner[1]
    assert set(values.unique().tolist()) <= {0.0, 1.0}


def trained(*parts: gp.Manipulation) -> tuple[int, int]:
    """How many parameters train, and how many are stored."""
    task = gp.compile(captured("residual")[1], gp.Program(list(parts)))
    return task.trained_parameters(), sum(p.numel() for p in task.program.parameters())


def test_parameters_behind_a_mask_are_stored_but_not_counted() -> None:
    assert trained(gp.Additive()) == (768, 768)
    assert trained(gp.Additive(mask=gp.masks.border(inner=10))) == (3 * (256 - 100), 768)
    assert trained(gp.Additive(mask=gp.masks.border(width=8))) == (768, 768)
    channels = gp.Learnable(shape=(3, 1, 1))
    assert trained(gp.Additive(value=channels, mask=gp.masks.border(inner=10))) == (3, 3)
    assert trained(gp.Additive(value=gp.Fixed(torch.ones(3, 1, 1)))) == (0, 0)
