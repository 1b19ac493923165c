"""Plots of attention weights show the weights, under the texts that they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import graphprog as gp
from graphprog.errors import DataError

WEIGHTS = torch.rand(5, 4, 6, generator=torch.Generator().manual_seed(0)).softmax(-1)


def panels(drawing: Any) -> list[Any]:
    return [axis for axis in drawing.axes if axis.get_title().startswith("head")]


def test_every_head_is_a_panel_on_one_scale(tmp_path: Path) -> None:
    drawing = gp.instruments.plot_attention(
        WEIGHTS, tmp_path / "map.png", tokens=["a", "$b", "c\n", "d"]
    )
    assert (tmp_path / "map.png").stat().st_size > 5000
    shown = panels(drawing)
    assert [axis.get_title() for axis in shown] == [f"head {head}" for head in range(5)]
    for axis, weights in zip(shown, WEIGHTS, strict=True):
        (image,) = axis.images
        np.testing.assert_array_equal(image.get_array(), weights.numpy())
        assert image.get_clim() == (0, float(WEIGHTS.max()))
    keys, queries = (
        [label.get_text() for label in labels]
        for labels in (shown[0].get_xticklabels(), shown[0].get_yticklabels())
    )
    assert queries == ["a", r"\$b", r"c\n", "d"]
    assert keys == ["0", "1", *queries]  # of a prefix


def test_the_weights_of_a_query_lie_over_the_image() -> None:
    image = torch.rand(3, 20, 30)
    drawing = gp.instruments.plot_attention(WEIGHTS[:2], image=image, grid=(1, 5), query=-1)
    shown = panels(drawing)
    for axis, weights in zip(shown, WEIGHTS, strict=False):
        over = axis.images[1]
        np.testing.assert_array_equal(over.get_array(), weights[3, None, 1:].numpy())
        assert over.get_extent() == [0, 30, 20, 0]
        assert axis.texts[0].get_text() == f"{100 * float(weights[3, 1:].sum()):.0f} % on patches"


def test_one_head_and_long_texts() -> None:
    (axis, _) = gp.instruments.plot_attention(WEIGHTS[0]).axes
    assert not axis.get_title()
    long = torch.full((1, 60, 60), 1 / 60)
    (axis, _) = gp.instruments.plot_attention(long, tokens=["word"] * 60).axes
    assert "word" not in [label.get_text() for label in axis.get_xticklabels()]


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        (WEIGHTS[None], {}, r"\[1, 5, 4, 6\]; \[heads, queries, keys\]"),
        (WEIGHTS, {"tokens": ["a"]}, "1 tokens do not label 4 queries and 6 keys"),
        (WEIGHTS.mT, {"tokens": ["a"] * 6}, "6 tokens do not label 6 queries and 4 keys"),
        (WEIGHTS, {"grid": (2, 2)}, "give either tokens="),
        (WEIGHTS, {"image": torch.rand(3, 8, 8), "grid": (2, 4)}, "6 keys have no query 0"),
        (WEIGHTS, {"image": torch.rand(3, 8, 8), "grid": (2, 2), "query": 4}, "no query 4"),
        (WEIGHTS, {"image": torch.rand(8, 8), "grid": (2, 2)}, r"the image has shape \[8, 8\]"),
    ],
)
def test_what_does_not_fit(weights: torch.Tensor, options: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        gp.instruments.plot_attention(weights, **options)


def test_places_lie_over_their_images(tmp_path: Path) -> None:
    places, images = torch.rand(3, 4, 4), torch.rand(3, 1, 16, 24)
    places[1] = 0  # nothing speaks for the class
    drawing = gp.instruments.plot_places(places, images, tmp_path / "places.png")
    assert (tmp_path / "places.png").stat().st_size > 5000
    shown = [axis for axis in drawing.axes if axis.get_title().startswith("image")]
    assert len(shown) == 3
    for axis, place in zip(shown, places, strict=True):
        expected = place / place.max().clamp(min=1e-12)
        np.testing.assert_allclose(axis.images[1].get_array(), expected.numpy(), rtol=1e-6)
        assert axis.images[1].get_extent() == [0, 24, 16, 0]
    for wrong in ((places[0], images), (places, images[:2]), (places, images[0])):
        with pytest.raises(DataError, match="do not fit"):
            gp.instruments.plot_places(*wrong)
    with pytest.raises(DataError, match=r"the image has shape \[2, 16, 24\]"):
        gp.instruments.plot_places(places, torch.rand(3, 2, 16, 24))
