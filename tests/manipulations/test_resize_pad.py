from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

import graphprog as gp
from graphprog.errors import ProgramError
from graphprog.values.context import BuildContext
from tests.models.zoo import captured


def placed(x: torch.Tensor, **options: Any) -> torch.Tensor:
    """What a placement makes of examples on a canvas of 3 by 16 by 16."""
    place = gp.ResizePad(shape=tuple(x.shape[1:]), **options)
    return place.build(BuildContext(torch.zeros(2, 3, 16, 16), "here"))(x)


def test_examples_are_padded_in_the_middle() -> None:
    x = torch.rand(2, 3, 7, 10)
    expected = torch.zeros(2, 3, 16, 16)
    expected[:, :, 5:12, 3:13] = x
    assert torch.equal(placed(x), expected)


@pytest.mark.parametrize(("inner", "front", "back"), [(32, 96, 96), (129, 48, 47)])
def test_published_paddings(inner: int, front: int, back: int) -> None:
    module = gp.ResizePad(shape=(1, inner, inner)).build(
        BuildContext(torch.zeros(2, 3, 224, 224), "here")
    )
    x = torch.rand(1, 1, inner, inner)
    expected = functional.pad(x.expand(1, 3, inner, inner), (front, back, front, back))
    assert torch.equal(module(x), expected)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_examples_are_resized_as_functional_interpolate_does(interpolation: str) -> None:
    x = torch.rand(2, 1, 8, 8)
    align = None if interpolation == "nearest" else False
    large = functional.interpolate(
        x.repeat(1, 3, 1, 1), (12, 12), mode=interpolation, align_corners=align
    )
    expected = functional.pad(large, (2, 2, 2, 2))
    assert torch.equal(placed(x, size=12, interpolation=interpolation), expected)


def test_one_axis() -> None:
    place = gp.ResizePad(shape=(1, 5), size=(8,))
    module = place.build(BuildContext(torch.zeros(2, 2, 11), "here"))
    x = torch.rand(3, 1, 5)
    large = functional.interpolate(x.repeat(1, 2, 1), 8, mode="linear", align_corners=False)
    assert torch.equal(module(x), functional.pad(large, (2, 1)))


def test_the_padding_may_have_a_color() -> None:
    x = torch.rand(2, 3, 4, 4)
    found = placed(x, fill=(0.25, 0.5, 0.75))
    torch.testing.assert_close(found[:, :, 6:10, 6:10], x)
    assert found[:, :, 0, 0].tolist() == [[0.25, 0.5, 0.75]] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (1, 17, 4)}, r"\(17, 4\) does not fit the canvas \(16, 16\) of input:x"),
        ({"shape": (1, 4, 4), "size": 17}, "does not fit the canvas"),
        ({"shape": (1, 4, 4), "size": (8,)}, "does not fit the canvas"),
        ({"shape": (2, 4, 4)}, "2 channels cannot become the 3 of input:x"),
        ({"shape": (1, 4)}, "has shape"),
        ({"shape": (1, 4, 4), "fill": (0.1, 0.2)}, "2 fill values for 3 channels"),
        ({"shape": (4,)}, "not the shape of one target example"),
        ({"shape": (1, 0, 4)}, "not the shape of one target example"),
        (
            {"shape": (1, 4, 4), "interpolation": "cubic"},
            "interpolation must be .*'cubic'",
        ),
        ({"shape": (1, 4, 4), "size": 0}, "size"),
        ({"shape": (1, 4, 4), "size": (-1, 4)}, "size"),
    ],
)
def test_what_cannot_be_placed(options: Any, message: str) -> None:
    _, graph = captured("residual")
    with pytest.raises(ProgramError, match=message):
        gp.compile(graph, gp.Program([gp.ResizePad(**options)]))
