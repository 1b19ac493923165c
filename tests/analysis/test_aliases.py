from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.errors import InterfaceError
from tests.models import library_models as library
from tests.models.networks import streams
from tests.models.networks.corner import Mixing, Tower
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
    "timm-swin": ["layers.0.blocks.0", *(f"layers.{i}.blocks.{j}" for i in (1, 2) for j in (0, 1))],
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
    assert graph.aliases["text.tokens"] == graph.aliases["tokens"]
    assert graph.aliases["vision.features"] == "visual_projection:in"
    assert graph.aliases["text.features"] == "text_projection:in"


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


def hidden_of(graph: gp.Graph, tower: str = "") -> list[str]:
    return [one.key for one in graph.interfaces().resolve_all(f"{tower}hidden[*]")]


def test_blocks_lie_on_one_stream_of_outer_and_inner_blocks() -> None:
    graph = gp.capture(streams.OuterInnerStack().eval(), (torch.randn(2, 5, 2, 3),))
    # the last block's pixels are not read, so its patches are its only output
    assert hidden_of(graph) == ["blocks.0:out[1]", "blocks.1:out[1]", "blocks.2:out[1]"]
    assert graph.interfaces().resolve("embedding").key == "blocks.0:in[1]"
    assert {one.shape for one in graph.interfaces().resolve_all("hidden[*]")} == {("B", 5, 6)}


def test_parts_of_every_other_block_are_not_blocks() -> None:
    graph = gp.capture(streams.MergedStack().eval(), (torch.randn(2, 4, 6, 6),))
    assert hidden_of(graph) == [f"blocks.{i}:out" for i in range(4)]


def test_a_layer_beside_the_first_block_does_not_hide_it() -> None:
    graph = gp.capture(streams.ConvolutionBeside().eval(), (torch.randn(2, 6, 3),))
    assert hidden_of(graph) == [f"layers.{i}:out" for i in range(3)]


def test_blocks_of_a_hierarchy_are_one_list_and_their_stage_is_told() -> None:
    graph = gp.capture(streams.Hybrid().eval(), (torch.randn(2, 3, 16, 16),))
    sizes = enumerate((2, 3, 2))
    stages = [[f"stages.{stage}.blocks.{i}:out" for i in range(size)] for stage, size in sizes]
    assert hidden_of(graph) == [key for stage in stages for key in stage]
    for number, expected in enumerate(stages):
        assert hidden_of(graph, f"stages[{number}].") == expected
    places = graph.interfaces()
    assert places.resolve("stages[1].hidden[0]") == places.resolve("hidden[2]")
    assert places.resolve("stages[1].hidden[-1]").key == "stages.1.blocks.2:out"
    firsts = [one.key for one in places.resolve_all("stages[*].hidden[0]")]
    assert firsts == [f"stages.{stage}.blocks.0:out" for stage in range(3)]
    assert "stages[1].hidden[0:3]" in str(places)
    (tower,) = graph.summary().towers
    assert (tower.name, tower.blocks) == ("", 7)


def test_equal_blocks_have_no_stages() -> None:
    _, graph = captured("transformer")
    assert not [alias for alias in graph.aliases if alias.startswith("stages")]


def test_attention_with_pooled_queries_or_keys_is_self_attention() -> None:
    graph = gp.capture(streams.PooledAttention().eval(), (torch.randn(2, 8, 3),))
    found = [key for alias, key in graph.aliases.items() if "attention" in alias]
    assert found == ["blocks.0:attention", "blocks.1:attention"]
    assert {"attention[0]", "attention[1]"} <= set(graph.aliases)


def test_tokens_and_features_belong_to_towers() -> None:
    call = (torch.randn(2, 5, 3), torch.randint(50, (2, 7)))
    graph = gp.capture(streams.Contrastive().eval(), call)
    places = graph.interfaces()
    assert hidden_of(graph, "vision.") == [f"vision_model.layers.{i}:out" for i in range(3)]
    assert hidden_of(graph, "text.") == [f"text_model.layers.{i}:out" for i in range(2)]
    assert places.resolve("text.tokens").key == places.resolve("tokens").key
    assert places.resolve("tokens").key == "text_model.table:out"
    assert places.resolve("vision.features").key == "image_projection:in"
    assert places.resolve("vision.prenorm").key == "vision_model.norm:in"
    assert places.resolve("text.prenorm").key == places.resolve("text.embedding").key
    assert places.resolve("text.features").key == "text_projection:in"
    with pytest.raises(InterfaceError, match=r"(?s)ambiguous.*vision\.features, text\.features"):
        places.resolve("features")


@pytest.mark.xdist_group("deberta")
def test_blocks_of_an_encoder_with_a_convolution() -> None:
    graph = gp.capture(library.deberta(), (torch.randint(1, 90, (2, 8)),))
    assert hidden_of(graph) == [f"deberta.encoder.layer.{i}:out" for i in range(3)]


def timm_graph(name: str, size: int, **options: Any) -> gp.Graph:
    model = library.timm_model(name, **options).eval().requires_grad_(False)
    return gp.capture(model, (torch.randn(2, 3, size, size),))


@pytest.mark.slow
def test_blocks_of_a_transformer_in_a_transformer() -> None:
    graph = timm_graph("tnt_s_legacy_patch16_224", 32, img_size=32, depth=3)
    assert [key.partition(":")[0] for key in hidden_of(graph)] == [f"blocks.{i}" for i in range(3)]
    assert {one.shape for one in graph.interfaces().resolve_all("hidden[*]")} == {("B", 5, 384)}


@pytest.mark.slow
@pytest.mark.parametrize("merged", [False, True])
def test_blocks_of_a_reparameterized_network(merged: bool) -> None:
    from timm.utils.model import reparameterize_model

    model = library.timm_model("mobileone_s4").eval().requires_grad_(False)
    if merged:
        model = reparameterize_model(model)
    graph = gp.capture(model, (torch.randn(2, 3, 32, 32),))
    blocks = [f"stages.{s}.{i}:out" for s, n in enumerate((2, 8, 10, 1)) for i in range(2 * n)]
    found = hidden_of(graph)
    assert found[-len(blocks) :] == blocks
    assert found[: -len(blocks)] in ([], ["stem:out"])


@pytest.mark.slow
def test_blocks_of_a_staged_hybrid() -> None:
    graph = timm_graph("mobilevit_xxs", 64)
    found = [key.removeprefix("stages.").removesuffix(":out") for key in hidden_of(graph)]
    mixed = {2: 2, 3: 4, 4: 3}
    expected = ["0.0", "1.0", "1.1", "1.2"]
    for stage, depth in mixed.items():
        expected += [f"{stage}.0", *(f"{stage}.1.transformer.{i}" for i in range(depth))]
    assert found == expected
    assert hidden_of(graph, "stages[3].")[0] == "stages.3.0:out"
    attended = [alias for alias in graph.aliases if alias.startswith("attention")]
    assert len(attended) == sum(mixed.values())


@pytest.mark.slow
def test_pooled_queries_of_a_library_model() -> None:
    graph = timm_graph("hiera_tiny_224", 64, img_size=(64, 64))
    assert not [alias for alias in graph.aliases if "cross_attention" in alias]
    assert len(graph.interfaces().resolve_all("attention[*]")) == len(hidden_of(graph)) == 12
