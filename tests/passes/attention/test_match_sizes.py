"""Attention is matched by what sizes are, not by what they happen to be in the example."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import graphprog as gp
from graphprog.analysis.attention import attentions
from graphprog.passes import MatchAttention
from graphprog.passes.attention.match_attention import explain
from graphprog.passes.attention.score_chain import alike
from tests.models.attention_models import HEAD, HEADS, MATCHED, WIDTH, Weigh, Written, inputs
from tests.models.prefix_models import presence
from tests.support.comparisons import gap


def captured(weigh: Weigh, batch: int, length: int) -> tuple[Written, gp.Graph]:
    """A model and its graph for any batch and length, captured at these."""
    torch.manual_seed(0)
    model = Written(weigh).eval().requires_grad_(False)
    axes = {name: {0: "batch", 1: "sequence"} for name in ("x", "mask")}
    example = (torch.randn(batch, length, WIDTH), presence(batch, length))
    return model, gp.capture(model, example, dynamic_axes=axes)


@pytest.mark.parametrize("name", ["plain", "folded", "biased", "grouped", "one head"])
@pytest.mark.parametrize(("batch", "length"), [(HEADS, HEADS), (HEADS, HEAD), (2, WIDTH)])
def test_an_example_of_as_many_tokens_as_heads_or_head_sizes(
    name: str, batch: int, length: int
) -> None:
    model, graph = captured(MATCHED[name], batch, length)
    matched = MatchAttention()(graph)
    assert len(attentions(matched.code)) == 1
    x, mask = inputs(3, 5)
    with torch.no_grad():
        assert gap(matched(x, mask), model(x, mask)) < 1e-6


def test_sizes_are_alike_where_they_are_so_at_any_length() -> None:
    _, graph = captured(MATCHED["plain"], HEADS, HEADS)
    batch, length, _ = graph.nodes["x"].meta["val"].shape
    assert alike(length, length)
    assert alike(length // 2 // 2, length // 4)
    assert not alike(batch, length)
    assert not alike(length, HEADS)
    assert not alike(batch * length, HEADS * length)


def _regrouped(model: Written, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    _, heads, length, _ = q.shape
    scores = q @ k[:, :1].mT
    scores = scores.flatten(1, 2).unflatten(1, (length, heads))
    return (scores.softmax(-1) @ v[:, :1]).transpose(1, 2)


def test_scores_that_change_their_rows_are_no_attention_though_the_example_has_as_many() -> None:
    model, graph = captured(_regrouped, 2, HEADS)
    assert "the scores get another shape here" in explain(graph)[0]
    assert MatchAttention()(graph).bare_text == graph.bare_text
    x, mask = inputs(3, 5)
    with torch.no_grad():
        assert torch.equal(graph(x, mask), model(x, mask))
