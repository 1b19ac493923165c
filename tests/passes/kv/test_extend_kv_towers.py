"""Prefix in encoders, across towers and in pictures; the reference changes attention eagerly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import graphprog as gp
from graphprog.errors import ProgramError
from tests.models.prefix_models import (
    encoder,
    pairs_of,
    presence,
    some_ids,
    towers_call,
    two_towers,
    watched,
)

LENGTH = 5


PLACES = {
    "encoder.attention[*]": ((0, 1), "source"),
    "decoder.attention[*]": ((2, 4), "target"),
    "decoder.cross_attention[*]": ((3, 5), "source"),
}
"""Which operations they are, in order of the calls, and whose length their keys have."""


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("name", ["t5", pytest.param("bart", marks=pytest.mark.slow)])
def test_each_kind_of_attention_of_two_towers_has_its_own(name: str, at: str) -> None:
    model, graph = two_towers(name)
    part = gp.Prefix(at=at, length=LENGTH, value=gp.Learnable("normal", 3.0), positions="keep")
    task = gp.compile(graph, gp.Program([part]))
    numbers, axis = PLACES[at]
    call = towers_call(3, 11, 7)
    longer = {**call, **_longer(call, axis)}
    pairs = dict(zip(numbers, pairs_of(task), strict=True))
    wanted = watched(model, pairs, call, longer).logits
    with torch.no_grad():
        found = task(**call).logits
        plain = model(**call).logits
    assert (found - wanted).abs().max() < 1e-6
    assert (plain - wanted).abs().max() > 1e-4


def _longer(call: dict[str, Any], axis: str) -> dict[str, Tensor]:
    """The inputs of one tower with as many tokens more in front."""
    names = ["decoder_input_ids"] if axis == "target" else ["input_ids", "attention_mask"]
    return {
        name: torch.cat([torch.ones_like(call[name][:, :1]).expand(-1, LENGTH), call[name]], 1)
        for name in names
    }


@pytest.mark.parametrize("positions", ["shift", "keep"])
def test_an_encoder_reads_its_positions_shifted_or_kept(positions: str) -> None:
    model, graph = encoder()
    part = gp.Prefix(length=LENGTH, value=gp.Learnable("normal", 0.5), positions=positions)
    task = gp.compile(graph, gp.Program([part]))
    call = {"input_ids": some_ids(3, 12), "attention_mask": presence(3, 12)}
    longer = _longer(call, "source")
    moved = torch.arange(12)[None] + (LENGTH if positions == "shift" else 0)
    pairs = dict(enumerate(pairs_of(task)))
    wanted = watched(model, pairs, {**call, "position_ids": moved}, longer).logits
    with torch.no_grad():
        assert (task(**call).logits - wanted).abs().max() < 1e-6


class Causal(nn.Module):
    """Attention that hides what comes later by itself, over pictures or tokens of any number."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.project = nn.Linear(16, 48)
        self.head = nn.Linear(16, 3)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (2, 8)).transpose(1, 2) for part in self.project(x).chunk(3, -1)
        )
        y = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.head(x + y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("varying", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_that_is_causal_by_itself_gets_a_mask(causal: bool, varying: bool) -> None:
    torch.manual_seed(0)
    model = Causal(causal).eval().requires_grad_(False)
    axes = {"x": {0: "batch", 1: "length"}} if varying else None
    graph = gp.capture(model, (torch.randn(2, 6, 16),), dynamic_axes=axes)
    task = gp.compile(graph, gp.Program([gp.Prefix(length=4, value=gp.Learnable("normal", 1.0))]))
    x = torch.randn(3, 9 if varying else 6, 16)
    size = x.shape[1]
    ((key, value),) = pairs_of(task, layers=1)
    query, own, other = (
        part.unflatten(-1, (2, 8)).transpose(1, 2) for part in model.project(x).chunk(3, -1)
    )
    scores = query @ torch.cat([key.expand(3, -1, -1, -1), own], 2).transpose(2, 3) / 8**0.5
    if causal:
        hidden = torch.ones(size, size).triu(1).bool()
        scores[..., 4:] = scores[..., 4:].masked_fill(hidden, -torch.inf)
    y = scores.softmax(-1) @ torch.cat([value.expand(3, -1, -1, -1), other], 2)
    wanted = model.head(x + y.transpose(1, 2).flatten(2))
    assert torch.allclose(task(x), wanted, atol=1e-6)


def test_a_vision_transformer_has_a_memory_in_every_block() -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=2, embed_dim=32, num_heads=4, num_classes=5
    )
    model = model.eval().requires_grad_(False)
    graph = gp.capture(model, (torch.randn(2, 3, 32, 32),))
    task = gp.compile(graph, gp.Program([gp.Prefix(length=4, value=gp.Learnable("normal", 0.5))]))
    x = torch.randn(3, 3, 32, 32)
    wanted = watched(model, dict(enumerate(pairs_of(task))), {"x": x}, {"x": x})
    with torch.no_grad():
        assert (task(x) - wanted).abs().max() < 1e-6
        assert (model(x) - wanted).abs().max() > 1e-3


class Uneven(nn.Module):
    """Two attentions of different heads."""

    def forward(self, x: Tensor) -> Tensor:
        for heads in (2, 4):
            y = x.unflatten(-1, (heads, -1)).transpose(1, 2)
            y = functional.scaled_dot_product_attention(y, y, y)
            x = x + y.transpose(1, 2).flatten(2)
        return x


def test_different_heads_need_memories_of_their_own() -> None:
    graph = gp.capture(Uneven(), (torch.randn(2, 5, 16),))
    with pytest.raises(ProgramError, match="different key heads: 2 x 8, 4 x 4"):
        gp.compile(graph, gp.Program([gp.Prefix()]))
    parts = [gp.Prefix(at=f"attention[{number}]", name=f"m{number}") for number in range(2)]
    assert gp.compile(graph, gp.Program(parts))(torch.randn(3, 5, 16)).shape == (3, 5, 16)
