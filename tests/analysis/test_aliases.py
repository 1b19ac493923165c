from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.errors import InterfaceError
from tests.models.corner_networks import Mixing, Tower
from tests.models.zoo import captured, cases


def test_aliases_of_hand_written_models() -> None:
    residual = captured("residual")[1].aliases
    assert residual["embedding"] == "blocks.0:in"
    assert [residual[f"hidden[{i}]"] for i in range(3)] == [f"blocks.{i}:out" for i in range(3)]
    assert residual["features"] == "head:in"
    assert residual["logits"] == "output:logits"
    assert residual["input"] == "input:x"
    transformer = captured("transformer")[1].aliases
    assert transformer["tokens"] == "table:out"
    assert transformer["embedding"] == "layers.0:in[0]"
    assert transformer["hidden[2]"] == "layers.2:out"


BLOCKS = {
    "torchvision-resnet18": [f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)],
    "torchvision-vit": [f"encoder.layers.encoder_layer_{i}" for i in range(3)],
    "timm-vit": [f"blocks.{i}" for i in range(3)],
    "timm-resnet": [f"layer{i}.0" for i in (1, 2, 3, 4)],
    "timm-convnext": [
        *(f"stages.{i}.blocks.0" for i in (0, 1)),
        *(f"stages.2.blocks.{i}" for i in range(3)),
        "stages.3.blocks.0",
    ],
    "timm-mixer": [f"blocks.{i}" for i in range(8)],
    "timm-swin": [f"layers.{i}" for i in range(3)],
    "bert": [f"bert.encoder.layer.{i}" for i in range(3)],
    "gpt2": [f"transformer.h.{i}" for i in range(3)],
    "llama": [f"model.layers.{i}" for i in range(2)],
    "vit": [f"vit.layers.{i}" for i in range(3)],
}
HEADS = {"gpt2": "lm_head", "llama": "lm_head", "torchvision-resnet18": "fc", "timm-mixer": "head"}


@pytest.mark.parametrize("name", cases(BLOCKS))
def test_blocks_of_library_models(name: str) -> None:
    _, graph = captured(name)
    found = [key for alias, key in graph.aliases.items() if alias.startswith("hidden[")]
    assert found == [f"{path}:out" for path in BLOCKS[name]]
    assert graph.aliases["embedding"].startswith(BLOCKS[name][0] + ":in")
    if name in HEADS:
        assert graph.aliases["features"] == f"{HEADS[name]}:in"


@pytest.mark.slow
@pytest.mark.xdist_group("timm-efficientnet")
def test_blocks_of_efficientnet() -> None:
    _, graph = captured("timm-efficientnet")
    found = [key for alias, key in graph.aliases.items() if alias.startswith("hidden[")]
    stages = {1: 2, 2: 2, 3: 3, 4: 3, 5: 4, 6: 1}
    assert found == [f"blocks.{s}.{i}:out" for s, n in stages.items() for i in range(n)]


@pytest.mark.slow
@pytest.mark.xdist_group("clip")
def test_towers_of_a_library_model_are_told_apart() -> None:
    _, graph = captured("clip")
    assert graph.aliases["vision.hidden[2]"] == "vision_model.encoder.layers.2:out"
    assert graph.aliases["text.hidden[1]"] == "text_model.encoder.layers.1:out"
    assert graph.aliases["tokens"] == "text_model.embeddings.token_embedding:out"


def test_an_ambiguous_alias_lists_the_choices() -> None:
    places = captured("two-towers")[1].interfaces()
    for resolve in (places.resolve, places.resolve_all):
        with pytest.raises(InterfaceError, match=r"(?s)ambiguous.*vision\.embedding, text\.emb"):
            resolve("embedding")
    with pytest.raises(InterfaceError, match=r"(?s)ambiguous.*text\.hidden\[\*\], vision\.hidden"):
        places.resolve_all("hidden[*]")
    assert len(places.resolve_all("text.hidden[*]")) == 3
    assert len(places.resolve_all("*.hidden[*]")) == 5
    assert "ambiguous: embedding may be vision.embedding, text.embedding" in str(places)


def test_a_chain_is_found_whatever_its_modules_are_called() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.zebra, self.apple, self.mango = Mixing(), Mixing(), Mixing()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.apple(self.mango(self.zebra(x)))

    graph = gp.capture(Odd().eval(), (torch.randn(2, 8),))
    found = [key for alias, key in graph.aliases.items() if alias.startswith("hidden")]
    assert found == ["zebra:out", "mango:out", "apple:out"]


def test_parallel_branches_are_no_chain() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(Mixing() for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return sum(part(x) for part in self.parts)

    graph = gp.capture(Branches().eval(), (torch.randn(2, 8),))
    assert not [alias for alias in graph.aliases if alias.startswith("hidden")]


def test_nested_towers_are_qualified_by_the_first_difference() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.ModuleDict({"left": Tower(2), "right": Tower(2)})

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.model["left"](x) + self.model["right"](y)

    graph = gp.capture(Pair().eval(), (torch.randn(2, 8), torch.randn(2, 8)))
    assert {"left.embedding", "right.hidden[1]"} <= set(graph.aliases)


def test_a_bare_alias_with_one_choice_is_that_choice() -> None:
    graph = captured("two-towers")[1]
    chosen = {"cross_attention[0]": ("text.hidden[0]",), "cross_attention[1]": ("text.hidden[2]",)}
    places = dataclasses.replace(graph, choices=dict(graph.choices) | chosen).interfaces()
    assert places.resolve("cross_attention[1]") == places.resolve("text.hidden[2]")
    assert [one.key for one in places.resolve_all("cross_attention[*]")] == [
        "text.blocks.0:out",
        "text.blocks.2:out",
    ]
    assert places.resolve("cross_attention[-1]").key == "text.blocks.2:out"
    assert places.select("cross_attention[0]").keys() == {"text.blocks.0:out"}
    assert "cross_attention" not in str(places), "what has one choice is not ambiguous"


def test_a_wildcard_does_not_leave_out_what_is_ambiguous() -> None:
    places = captured("two-towers")[1].interfaces()
    assert places.resolve("hidden[2]").key == "text.blocks.2:out", "vision has two blocks"
    for name in ("hidden[*]", "hidden[1:]", "hidden[-1]"):
        with pytest.raises(InterfaceError, match=r"(?s)ambiguous.*text\.hidden\[\*\], vision"):
            places.resolve_all(name)


def test_a_choice_that_a_pass_removed_is_none() -> None:
    graph = captured("two-towers")[1]
    aliases = {alias: key for alias, key in graph.aliases.items() if "vision" not in alias}
    places = dataclasses.replace(graph, aliases=aliases).interfaces()
    assert len(places.resolve_all("hidden[*]")) == 3
