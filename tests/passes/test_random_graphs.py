"""Properties of rewriting on random small networks with branches, residuals and reused parts."""

from __future__ import annotations

import contextlib

import torch
from hypothesis import given
from hypothesis import strategies as st

import graphprog as gp
from graphprog.errors import InterfaceError
from graphprog.ir.graph import Graph
from graphprog.passes.insert.insert import Insert
from graphprog.passes.pipeline import Pipeline
from graphprog.passes.verify import verify
from tests.models.networks.random_networks import Network, X, few, networks


def capture(network: Network) -> Graph:
    return gp.capture(network, (torch.randn(2, 4),))


@few
@given(network=networks(), data=st.data())
def test_adding_zero_anywhere_changes_nothing(network: Network, data: st.DataObject) -> None:
    graph = capture(network)
    keys = data.draw(st.lists(st.sampled_from(sorted(graph.sites)), max_size=4))
    rewritten = Pipeline(tuple(Insert(gp.Additive(at=key)) for key in keys))(graph)
    verify(rewritten, graph)
    with torch.no_grad():
        assert torch.equal(rewritten(X), network(X))


@few
@given(network=networks(), data=st.data())
def test_only_what_an_interface_reaches_changes(network: Network, data: st.DataObject) -> None:
    graph = capture(network)
    key = data.draw(st.sampled_from(sorted(graph.sites)))
    place = graph.interfaces()[key]
    rewritten = Insert(gp.Additive(at=key))(graph)
    reached = {edge.user for edge in place.edges}
    for node in graph.code.nodes:
        if any(part.name in reached for part in node.all_input_nodes):
            reached.add(node.name)
    for name, node in graph.nodes.items():
        reads = [part.name for part in rewritten.nodes[name].all_input_nodes]
        direct = any(edge.user == name for edge in place.edges)
        assert (reads != [part.name for part in node.all_input_nodes]) == direct
    added = set(rewritten.nodes) - set(graph.nodes)
    assert {rewritten.nodes[name].meta["graphprog"] for name in added if "value" not in name} == {
        "program.additive"
    }
    assert reached


@few
@given(network=networks(), data=st.data())
def test_the_order_of_insertions_does_not_matter(network: Network, data: st.DataObject) -> None:
    graph = capture(network)
    keys = st.lists(st.sampled_from(sorted(graph.sites)), min_size=2, max_size=4, unique=True)
    parts = [
        gp.Additive(at=key, value=gp.Fixed(torch.full((4,), 0.1 * number)), clip=(-0.4, 0.5))
        for number, key in enumerate(data.draw(keys), 1)
    ]
    shuffled = data.draw(st.permutations(parts))
    results = []
    for order in (parts, shuffled):
        rewritten = Pipeline(tuple(Insert(part) for part in order))(graph)
        verify(rewritten, graph)
        with torch.no_grad():
            results.append(rewritten(X))
    assert torch.equal(*results)


@few
@given(network=networks())
def test_capture_is_exact_and_repeatable(network: Network) -> None:
    graph, again = capture(network), capture(network)
    assert graph.text == again.text
    assert graph.fingerprint == again.fingerprint
    tables = (str(one.interfaces(verbose=True)) for one in (graph, again))
    assert len(set(tables)) == 1
    with torch.no_grad():
        assert torch.equal(graph(X), network(X))


@few
@given(network=networks(), name=st.text(max_size=12))
def test_any_name_resolves_or_is_refused(network: Network, name: str) -> None:
    places = capture(network).interfaces()
    with contextlib.suppress(InterfaceError):
        assert places.resolve_all(name)
