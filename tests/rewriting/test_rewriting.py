from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

import graphprog as gp
from graphprog.ir.graph import Graph
from tests.models.zoo import CASES, captured, cases
from tests.support import oracle
from tests.support.comparisons import same

STEERED = [name for name in CASES if name not in ("inplace", "inplace-dropout", "lstm")]
"""Writes into a value tell a hook's result apart from a graph's: a graph has no memory to share."""


def pattern_for(graph: Graph, key: str, seed: int = 0) -> torch.Tensor:
    """Random numbers that can be added to the value at an interface."""
    place = graph.interfaces().resolve(key)
    shape = [size if isinstance(size, int) else 1 for size in place.shape[1:]]
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def steered(graph: Graph, key: str, **options: Any) -> gp.ReprogrammedModel:
    value = gp.Fixed(pattern_for(graph, key))
    return gp.compile(graph, gp.Program([gp.Additive(at=key, value=value, **options)]))


def keys_to_try(graph: Graph, limit: int = 6) -> list[str]:
    """Hidden places in order, and an even choice of all module boundaries that carry floats."""
    places = graph.interfaces()
    inner = [
        key
        for key, place in places.items()
        if place.dtype.is_floating_point
        and not key.startswith(("input:", "output:", "features", "tokens"))
        and isinstance(place.shape[0] if place.shape else 0, str)
    ]
    hidden = [key for alias, key in graph.aliases.items() if "hidden" in alias]
    step = -(-len(inner) // limit)
    return list(dict.fromkeys([*hidden[:1], *inner[::step]]))


@pytest.mark.parametrize("name", cases(STEERED))
def test_adding_at_a_module_boundary_is_what_a_hook_does(name: str) -> None:
    model, graph = captured(name)
    args, kwargs = CASES[name].call(3)
    known = oracle.values_of(model, args, kwargs)
    tried = [key for key in keys_to_try(graph) if key in known]
    if name.startswith("inplace-"):
        tried = [key for key in tried if key in ("body:in", "head:in", "head:out")]
    assert tried
    plain = graph(*args, **kwargs)
    for key in tried:
        added = pattern_for(graph, key)
        expected = oracle.changed(model, {key: lambda x, d=added: x + d}, args, kwargs)
        task = steered(graph, key)
        assert same(task(*args, **kwargs), expected), key
        with task.disabled():
            assert same(task(*args, **kwargs), plain), key


@pytest.mark.parametrize("name", cases(["sequential", "residual", "reused"]))
def test_adding_at_the_input_is_adding_to_the_input(name: str) -> None:
    model, graph = captured(name)
    (x,), _ = CASES[name].call(5)
    with torch.no_grad():
        assert same(steered(graph, "input")(x), model(x + pattern_for(graph, "input")))


@pytest.mark.parametrize("name", cases(["residual", "transformer", "timm-convnext", "bert"]))
def test_a_wildcard_acts_at_every_place_with_a_pattern_of_its_own(name: str) -> None:
    model, graph = captured(name)
    value = gp.Learnable("normal", scale=0.1)
    task = gp.compile(graph, gp.Program([gp.Additive(at="hidden[*]", name="steer", value=value)]))
    keys = [key for alias, key in graph.aliases.items() if alias.startswith("hidden[")]
    patterns = dict(task.program.named_children())
    assert list(patterns) == [f"steer_{number}" for number in range(len(keys))]
    changes = {
        key: lambda x, d=part.value: x + d
        for key, part in zip(keys, patterns.values(), strict=True)
    }
    assert len({part.value[..., 0].sum().item() for part in patterns.values()}) == len(keys)
    args, kwargs = CASES[name].call(3)
    with torch.no_grad():
        assert same(task(*args, **kwargs), oracle.changed(model, changes, args, kwargs))


def test_siblings_of_an_interface_keep_the_old_value() -> None:
    model, graph = captured("identities")
    (x,), _ = CASES["identities"].call(3)
    added = pattern_for(graph, "branch:out")
    with torch.no_grad():
        first = model.first(x)
        branch = torch.relu(model.second(first + added))
        assert same(steered(graph, "branch:out")(x), model.head(first * branch))
        both = first + added
        expected = model.head(both * torch.relu(model.second(both)))
        assert same(steered(graph, "stream:out")(x), expected)


def test_one_call_of_a_reused_module_is_changed() -> None:
    model, graph = captured("reused")
    (x,), _ = CASES["reused"].call(3)
    for key in ("layer:out", "layer@1:in", "layer@1:out", "layer.0@2:in"):
        change = {key: partial(torch.add, pattern_for(graph, key))}
        with torch.no_grad():
            expected = oracle.changed(model, change, (x,), {})
            assert same(steered(graph, key)(x), expected), key


ORDERS = [
    ("stream:out", "branch:in"),  # one lies within the other
    ("first:out", "stream:in"),  # both have the same uses
    ("input", "first:in"),
    ("branch:out", "second:in"),
]


@pytest.mark.parametrize(("early", "late"), ORDERS)
@pytest.mark.parametrize("clip", [None, (-0.2, 0.2)])
def test_the_order_of_parts_at_different_places_does_not_matter(
    early: str, late: str, clip: tuple[float, float] | None
) -> None:
    model, graph = captured("identities")
    (x,), _ = CASES["identities"].call(4)
    parts = [
        gp.Additive(at=key, value=gp.Fixed(pattern_for(graph, key, seed)), clip=clip)
        for seed, key in enumerate((early, late))
    ]

    def change(part: gp.Additive) -> Any:
        pattern = part.value.tensor  # type: ignore[union-attr]
        return lambda v: (v + pattern) if clip is None else (v + pattern).clamp(*clip)

    hooks = {part.at: change(part) for part in parts}
    start = hooks.pop("input")(x) if early == "input" else x
    with torch.no_grad():
        expected = oracle.changed(model, hooks, (start,), {})
        for order in (parts, parts[::-1]):
            assert same(gp.compile(graph, gp.Program(order))(x), expected)


def test_parts_at_one_place_act_in_the_order_given() -> None:
    model, graph = captured("residual")
    (x,), _ = CASES["residual"].call(2)
    low, high = gp.Additive(clip=(-0.1, 0.1)), gp.Additive(clip=(0.3, 0.5))
    with torch.no_grad():
        found = gp.compile(graph, gp.Program([low, high]))(x)
        assert same(found, model(x.clamp(-0.1, 0.1).clamp(0.3, 0.5)))
        found = gp.compile(graph, gp.Program([high, low]))(x)
        assert same(found, model(x.clamp(0.3, 0.5).clamp(-0.1, 0.1)))


@pytest.mark.parametrize("name", cases(["residual", "transformer", "bert"]))
def test_gradients_reach_the_program_and_only_it(name: str) -> None:
    model, graph = captured(name)
    task = gp.compile(
        graph, gp.Program([gp.Additive(at="hidden[*]")], align=gp.LinearHead(3, at="logits"))
    )
    args, kwargs = CASES[name].call(3)
    task(*args, **kwargs).square().sum().backward()
    trained = dict(task.named_parameters())
    for key, parameter in trained.items():
        if key.startswith("program."):
            assert parameter.grad is not None, key
            assert parameter.grad.abs().sum() > 0, key
        else:
            assert not parameter.requires_grad, key
            assert parameter.grad is None, key
    assert {key.split(".")[0] for key in trained} == {"program", "source"}
    assert all(parameter.grad is None for parameter in model.parameters())


def test_two_programs_on_one_graph_leave_it_and_each_other_alone() -> None:
    _, graph = captured("residual")
    (x,), _ = CASES["residual"].call(3)
    text, digest, history = graph.text, graph.weight_hash(), graph.history
    first = steered(graph, "hidden[0]")
    alone = first(x)
    second = gp.compile(
        graph,
        gp.Program([gp.Additive(at="hidden[0]")], align=gp.RandomMap(classes=4)),
    )
    for _ in range(2):
        second(x).sum().backward()
        assert same(first(x), alone)
    assert second.source is first.source
    assert second(x).shape == (3, 4)
    assert (graph.text, graph.weight_hash(), graph.history) == (text, digest, history)
    assert same(graph(x), captured("residual")[0](x))


@pytest.mark.parametrize("name", cases(["residual", "transformer", "tuples", "two-towers"]))
def test_a_program_compiles_into_a_program_of_another_kind(name: str) -> None:
    """Rewriting a rewritten graph: passes do not ask who ran before."""
    from graphprog.passes.insert.insert import Insert
    from graphprog.passes.verify import verify

    _, graph = captured(name)
    places = keys_to_try(graph, 4)[:4]
    rewritten = graph
    for key in places:
        rewritten = Insert(gp.Additive(at=key))(rewritten)
        verify(rewritten, graph)
    assert len(rewritten.insertions) == len(places)
    args, kwargs = CASES[name].call(3)
    with torch.no_grad():
        assert same(rewritten(*args, **kwargs), graph(*args, **kwargs))


def test_names_of_parts_do_not_collide() -> None:
    _, graph = captured("residual")
    parts = [gp.Additive(), gp.Additive(at="hidden[0]"), gp.Additive(at="hidden[1]", name="mine")]
    task = gp.compile(graph, gp.Program(parts))
    assert [name for name, _ in task.program.named_children()] == ["additive", "additive_1", "mine"]
