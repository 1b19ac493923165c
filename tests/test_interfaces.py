from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import graphprog as gp
from graphprog.errors import InterfaceError
from graphprog.graph import Graph, copy_code, executable
from graphprog.structure import with_structure
from tests import oracle
from tests.corner_models import Mixing, Tower
from tests.zoo import CASES, CORNERS, captured, cases


def values_in(graph: Graph, args: Any, kwargs: Any) -> dict[str, torch.Tensor]:
    """The value at every interface of a graph."""
    keys = [key for key in graph.sites if not key.startswith(("input:", "output:"))]
    run = executable(graph, tuple(graph.sites[key].node for key in keys))
    return dict(zip(keys, run(*graph.call_spec.bind(args, kwargs)), strict=True))


@pytest.mark.parametrize("name", cases(CASES))
def test_taps_carry_the_values_that_hooks_see(name: str) -> None:
    model, graph = captured(name)
    args, kwargs = CASES[name].call(3)
    with torch.no_grad():
        expected = oracle.values_of(model, args, kwargs)
        found = values_in(graph, args, kwargs)
    assert found
    if name.startswith("inplace-"):  # decomposed, so known by the modules of its operations only
        found = {key: value for key, value in found.items() if key in expected}
    for key, value in found.items():
        assert torch.equal(value, expected[key]), key
    if name in CORNERS and not name.startswith("inplace-"):
        unread = {"lstm:out[1][0]", "lstm:out[1][1]"} if name == "lstm" else set()
        assert set(expected) - set(found) == unread


def test_every_call_of_a_reused_module_has_its_own_interfaces() -> None:
    _, graph = captured("reused")
    assert {"layer:in", "layer@1:in", "layer@2:in", "layer.0@1:out"} <= set(graph.sites)
    with pytest.raises(InterfaceError, match=r"(?s)is a module.*layer:in, layer:out"):
        graph.interfaces().resolve("layer")


def test_leaves_of_trees_have_their_own_interfaces() -> None:
    _, graph = captured("tuples")
    keys = {key for key in graph.sites if key.startswith("split")}
    leaves = {"in[0]", "in[gain]", "out[0]", "out[1][sum]", "out[1][pair][0]"}
    assert keys == {f"split:{leaf}" for leaf in leaves}


def test_an_interface_holds_its_own_uses_only() -> None:
    _, graph = captured("identities")
    places = graph.interfaces()
    users = {
        key: {edge.user for edge in places[key].edges}
        for key in ("stream:out", "branch:out", "drop:out")
    }
    assert len({places[key].node for key in users}) == 1, "all three carry one value"
    assert len(users["stream:out"]) == 2, "the branch, and its sibling"
    assert users["branch:out"] == users["drop:out"] < users["stream:out"]


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


def test_an_unknown_interface_offers_the_nearest() -> None:
    places = captured("residual")[1].interfaces()
    with pytest.raises(InterfaceError, match=r"(?s)'hiden\[1\]'.*nearest names: .*hidden\[1\]"):
        places.resolve("hiden[1]")
    with pytest.raises(InterfaceError, match="no interface"):
        places.resolve_all("nowhere.*:out")
    with pytest.raises(InterfaceError, match="several interfaces where one is wanted"):
        places.resolve("hidden[*]")


def test_the_table_says_what_lies_where() -> None:
    places = captured("transformer")[1].interfaces()
    tokens_place = places.resolve("tokens")
    assert tokens_place.type_text == "f32[B,S,16]"
    assert tokens_place.kind == "embedding"
    assert places["input:input_ids"].kind == "input"
    assert places["input:input_ids"].type_text == "i64[B,S]"
    assert places.resolve("hidden[1]").kind == "hidden"
    assert places.resolve("logits").kind == "output"
    lines = str(places).splitlines()
    assert lines[0].split() == ["interface", "kind", "also", "value", "uses"]
    assert len(lines) == 2 + len(places) + 1, "one a place, and the ambiguous alias `input`"
    assert next(iter(places)).startswith("input:")
    assert list(places)[-1] == "output:logits"


def stripped(graph: Graph, names: bool) -> Graph:
    """The graph without taps, and without module names unless ``names``."""
    code, _ = copy_code(graph.code)
    for node in code.nodes:
        node.meta = dict(node.meta)
        if not names:
            node.meta.pop("nn_module_stack", None)
    return with_structure(dataclasses.replace(graph, code=code, sites={}, aliases={}, choices={}))


@pytest.mark.parametrize("name", cases(["residual", "transformer", "torchvision-resnet18", "gpt2"]))
def test_module_names_alone_find_nearly_the_same(name: str) -> None:
    model, graph = captured(name)
    fallback = stripped(graph, names=True)
    hidden = [key for key in graph.aliases if "hidden" in key or key in ("embedding", "features")]
    for alias in hidden:
        ours, theirs = (g.interfaces().resolve(alias) for g in (graph, fallback))
        assert ours.node == theirs.node, alias
        assert set(ours.edges) == set(theirs.edges), alias
    args, kwargs = CASES[name].call(3)
    with torch.no_grad():
        expected = oracle.values_of(model, args, kwargs)
        found = values_in(fallback, args, kwargs)
    shared = [key for key in found if key in expected]
    assert len(shared) > 0.6 * len(found)
    equal = [key for key in shared if torch.equal(found[key], expected[key])]
    assert len(equal) >= 0.95 * len(shared)


@pytest.mark.parametrize("name", cases(["residual", "transformer", "torchvision-resnet18", "gpt2"]))
def test_without_any_names_dominators_propose_places(name: str) -> None:
    _, graph = captured(name)
    bare = stripped(graph, names=False)
    hidden = [alias for alias in bare.aliases if alias.startswith("hidden[")]
    assert len(hidden) >= 2
    kinds = ("cut.", "input:", "output:", "tokens:", "features")
    assert all(key.startswith(kinds) for key in bare.sites)
    proposed = {bare.sites[bare.aliases[alias]].node for alias in hidden}
    true = {graph.sites[graph.aliases[a]].node for a in graph.aliases if a.startswith("hidden[")}
    if name in ("transformer", "gpt2"):  # stages of a CNN differ, so blocks repeat in part
        assert proposed == true
    task = gp.compile(bare, gp.Program([gp.Additive(at="hidden[*]")]))
    args, kwargs = CASES[name].call(3)
    with torch.no_grad():
        expected, found = graph(*args, **kwargs), task(*args, **kwargs)
    for before, after in zip(tree_leaves(expected), tree_leaves(found), strict=True):
        assert torch.equal(before, after)


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
