from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

import graphprog as gp
from graphprog.errors import PassError
from graphprog.ir.execution import copy_code
from graphprog.ir.graph import Graph, Site
from graphprog.ir.interface import Edge
from graphprog.ir.weights import SourceTensors, Weights
from graphprog.passes.verify import CHECKS, verify
from tests.models.corner_models import ResidualNet
from tests.models.zoo import captured


def damaged(graph: Graph) -> tuple[Graph, dict[str, Any]]:
    """A copy whose code may be spoilt, and its nodes by the name of their operation."""
    code, _ = copy_code(graph.code)
    for node in code.nodes:
        node.meta = dict(node.meta)
    copy = dataclasses.replace(graph, code=code)
    return copy, {node.name: node for node in code.nodes}


def with_dangling_weight(graph: Graph) -> Graph:
    copy, _ = damaged(graph)
    next(iter(copy.code.find_nodes(op="get_attr"))).target = "source.gone"
    return copy


def with_stale_site(graph: Graph) -> Graph:
    sites = {**graph.sites, "ghost:out": Site("ghost", ())}
    return dataclasses.replace(graph, sites=sites)


def with_stale_edge(graph: Graph) -> Graph:
    site = graph.sites["blocks.0:out"]
    edges = (Edge(site.edges[0].user, 1 - site.edges[0].slot),)
    sites = {**graph.sites, "blocks.0:out": dataclasses.replace(site, edges=edges)}
    return dataclasses.replace(graph, sites=sites)


def with_missing_value(graph: Graph) -> Graph:
    copy, _ = damaged(graph)
    del copy.output_nodes[0].meta["val"]
    return copy


def with_stale_value(graph: Graph) -> Graph:
    copy, _ = damaged(graph)
    node = copy.output_nodes[0]
    with node.meta["val"].fake_mode:
        node.meta["val"] = node.meta["val"][:, :3]
    return copy


def with_other_operation(graph: Graph) -> Graph:
    copy, _ = damaged(graph)
    relu = next(n for n in copy.code.nodes if n.target is torch.ops.aten.relu.default)
    relu.target = torch.ops.aten.sigmoid.default
    return copy


def with_other_order(graph: Graph) -> Graph:
    """An operation reads what is computed after it."""
    copy, _ = damaged(graph)
    first = next(n for n in copy.code.nodes if n.op == "call_function")
    first.args = (copy.output_nodes[0], *first.args[1:])
    return copy


def with_copied_weights(graph: Graph) -> Graph:
    return dataclasses.replace(graph, weights=Weights(SourceTensors()))


DAMAGE = {
    with_dangling_weight: "structure: source.gone names nothing",
    with_stale_site: "structure: interface ghost:out lies at a node that is gone",
    with_stale_edge: "structure: interface blocks.0:out has a stale edge",
    with_other_order: "structure: ",
    with_missing_value: "metadata: .* has no fake value",
    with_stale_value: "metadata: .* is recorded as",
    with_other_operation: "meaning: erasing the program does not give the source back",
    with_copied_weights: "structure: .* names nothing",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_verification_finds_damage(damage: Any) -> None:
    _, graph = captured("residual")
    verify(graph, graph)
    with pytest.raises(PassError, match=DAMAGE[damage]):
        verify(damage(graph), graph)


def test_verification_finds_weights_that_are_copied_or_can_train() -> None:
    torch.manual_seed(0)
    model = ResidualNet().eval()
    graph, other = (gp.capture(model, (torch.randn(2, 3, 16, 16),)) for _ in range(2))
    with pytest.raises(PassError, match="frozenness: the source weights were copied"):
        verify(dataclasses.replace(graph, weights=other.weights), graph)
    graph.weights.source.requires_grad_(True)
    with pytest.raises(PassError, match=r"frozenness: source\..* can train"):
        verify(graph, graph)


def test_verification_finds_a_size_that_became_fixed() -> None:
    graph = gp.capture(ResidualNet().eval(), (torch.randn(2, 3, 16, 16),))
    verify(graph, graph)
    assert int(graph.placeholders[0].meta["val"].shape[0]) == 2  # asking fixes it
    with pytest.raises(PassError, match="polymorphism: size B became 2"):
        verify(graph, graph)


def test_every_check_has_been_seen_to_fail() -> None:
    shown = {text.partition(":")[0] for text in DAMAGE.values()}
    assert shown | {"frozenness", "polymorphism"} == set(CHECKS)
