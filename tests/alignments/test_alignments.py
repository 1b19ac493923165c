"""Alignments that are not counted: their fields, their arithmetic, their text, their refusals."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from graphprog.alignments import (
    Alignment,
    BayesianMap,
    FixedMap,
    FrequencyMap,
    Identity,
    IterativeMap,
    LinearHead,
    PooledLinear,
    RandomMap,
)
from graphprog.errors import FileError, GraphprogError, ProgramError
from graphprog.spec.registry import format_spec, from_json, parse_spec, to_json
from graphprog.values.context import BuildContext

SPECS = [
    Identity(),
    Identity(at="vit.layers.3:out"),
    RandomMap(10),
    RandomMap(10, seed=7, per_class=3, aggregate="logsumexp"),
    FixedMap(10),
    FixedMap(10, per_class=2),
    FixedMap(sources=(3, 1, 2)),
    FixedMap(sources=((3, 1), (2, 4)), aggregate="probabilities"),
    FrequencyMap(10, per_class=6),
    IterativeMap(10, every=3, collect="epoch"),
    BayesianMap(10),
    BayesianMap(10, every=None, smoothing=0.5, top=0.15),
    LinearHead(10),
    LinearHead(10, at="features", bias=False, pool="mean", axis=-1),
]


def build(alignment: Alignment, values: torch.Tensor, seed: int = 0) -> nn.Module:
    return alignment.build(BuildContext(values, generator=torch.Generator().manual_seed(seed)))


def linear(head: LinearHead, values: torch.Tensor, seed: int = 0) -> PooledLinear:
    return head.build(BuildContext(values, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("alignment", SPECS, ids=str)
def test_specs_survive_text_and_json(alignment: Alignment) -> None:
    assert parse_spec(format_spec(alignment)) == alignment
    assert from_json(json.loads(json.dumps(to_json(alignment, {}))), {}) == alignment


def test_text_names_only_what_differs_from_the_defaults() -> None:
    assert str(BayesianMap(10)) == "bayesian-map{classes=10}"
    assert str(FixedMap(sources=(3, 1))) == "fixed-map{classes=2 sources=[3 1]}"


def test_identity_returns_its_input() -> None:
    values = torch.randn(2, 3, 4)
    assert Identity().is_identity
    assert not RandomMap(2).is_identity
    assert not Identity(at="hidden[1]").is_identity
    assert build(Identity(), values)(values).equal(values)


def test_random_map_is_the_start_of_a_seeded_permutation() -> None:
    values = torch.randn(4, 50)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(5))
    first = build(RandomMap(10, seed=5), values, seed=0)
    again = build(RandomMap(10, seed=5), values, seed=1)
    assert torch.equal(first(values), values[:, order[:10]])
    assert torch.equal(first(values), again(values))
    assert not torch.equal(first(values), build(RandomMap(10, seed=6), values)(values))


def test_fixed_map_takes_the_first_classes_or_those_named() -> None:
    values = torch.randn(4, 12)
    assert torch.equal(build(FixedMap(10), values)(values), values[:, :10])
    assert torch.equal(build(FixedMap(sources=(7, 0)), values)(values), values[:, [7, 0]])


def test_aggregates_follow_their_formulas_on_contiguous_rows() -> None:
    values = torch.randn(5, 8, dtype=torch.float64)
    sources = ((5, 0), (1, 7), (2, 3))
    maps = {
        how: build(FixedMap(sources=sources, aggregate=how), values)(values)
        for how in ("logits", "probabilities", "logsumexp")
    }
    for target, row in enumerate(sources):
        picked = values[:, list(row)]
        probabilities = values.softmax(1)[:, list(row)]
        torch.testing.assert_close(maps["logits"][:, target], picked.mean(1))
        torch.testing.assert_close(maps["probabilities"][:, target], probabilities.mean(1).log())
        torch.testing.assert_close(maps["logsumexp"][:, target], picked.exp().sum(1).log())
    torch.testing.assert_close(maps["probabilities"].softmax(1), maps["logsumexp"].softmax(1))
    assert not torch.allclose(maps["logits"].softmax(1), maps["logsumexp"].softmax(1))


def test_probabilities_of_extreme_logits_stay_finite() -> None:
    values = torch.tensor([[400.0, -400.0, 0.0, 1.0]])
    logits = build(FixedMap(2, per_class=2, aggregate="probabilities"), values)(values)
    second = -399 + math.log1p(math.exp(-1))
    torch.testing.assert_close(logits + math.log(2), torch.tensor([[0.0, second]]))


def test_linear_head_is_a_linear_layer_drawn_from_the_generator() -> None:
    values = torch.randn(3, 20)
    head = linear(LinearHead(4), values, seed=1)
    assert {name: tuple(p.shape) for name, p in head.named_parameters()} == {
        "weight": (4, 20),
        "bias": (4,),
    }
    assert all(p.requires_grad and p.abs().max() <= 20**-0.5 for p in head.parameters())
    assert head.bias is not None
    torch.testing.assert_close(head(values), values @ head.weight.T + head.bias)
    assert torch.equal(head.weight, linear(LinearHead(4), values, seed=1).weight)
    assert not torch.equal(head.weight, linear(LinearHead(4), values, seed=2).weight)
    assert linear(LinearHead(4, bias=False), values).bias is None


@pytest.mark.parametrize(
    ("shape", "fields", "expected"),
    [
        ((2, 5, 7), {"pool": "mean"}, lambda v: v.mean(1)),
        ((2, 5, 7), {"pool": "first"}, lambda v: v[:, 0]),
        ((2, 5, 7), {"pool": "last"}, lambda v: v[:, -1]),
        ((2, 5, 7), {"pool": "mean", "axis": 1}, lambda v: v.mean(2)),
        ((2, 5, 7), {"pool": "flatten"}, lambda v: v.flatten(1)),
        ((2, 5, 4, 3), {"pool": "mean"}, lambda v: v.mean((2, 3))),
        ((2, 5, 4, 3), {"pool": "last"}, lambda v: v[:, :, -1, -1]),
        ((2, 5, 4, 3), {"pool": "mean", "axis": -1}, lambda v: v.mean((1, 2))),
    ],
)
def test_linear_head_pools_values_of_higher_rank(
    shape: tuple[int, ...], fields: dict[str, Any], expected: Any
) -> None:
    values = torch.randn(shape)
    head = linear(LinearHead(3, at="features", **fields), values)
    mapped = functional.linear(expected(values), head.weight, head.bias)
    torch.testing.assert_close(head(values), mapped)


def test_half_precision_values_meet_float32_parameters_and_float64_theirs() -> None:
    half = torch.randn(3, 20, dtype=torch.bfloat16)
    head = linear(LinearHead(4), half)
    assert head.weight.dtype == head(half).dtype == torch.float32
    assert linear(LinearHead(4), half.double()).weight.dtype == torch.float64
    weighted = BayesianMap(4).build(BuildContext(half))
    assert weighted(half).dtype == torch.bfloat16
    assert weighted.weights.dtype == torch.float32


@pytest.mark.parametrize("alignment", SPECS[2:], ids=str)
def test_fake_and_meta_values_build_the_same_module_on_the_cpu(alignment: Alignment) -> None:
    real = build(alignment, torch.zeros(2, 90)).state_dict()
    with FakeTensorMode():
        fake = torch.empty(2, 90, device="cuda")
    for values in (fake, torch.empty(2, 90, device="meta")):
        state = build(alignment, values).state_dict()
        assert state.keys() == real.keys()
        assert all(torch.equal(state[name], real[name]) for name in real)
        assert all(tensor.device.type == "cpu" for tensor in state.values())


@pytest.mark.parametrize(
    "alignment",
    [FixedMap(20), RandomMap(4, per_class=3), FrequencyMap(11), IterativeMap(5, per_class=3)],
    ids=str,
)
def test_too_many_target_classes_for_a_selection_propose_what_works(alignment: Alignment) -> None:
    with pytest.raises(ProgramError, match=r"'logits' has only 10[\s\S]*BayesianMap[\s\S]*Linear"):
        build(alignment, torch.zeros(2, 10))
    wide = BayesianMap(20)
    assert build(wide, torch.zeros(2, 10))(torch.zeros(2, 10)).shape == (2, 20)


@pytest.mark.parametrize(
    ("alignment", "values", "message"),
    [
        (BayesianMap(2), torch.zeros(2, 3, 4), r"not \[2, 3, 4\][\s\S]*LinearHead"),
        (RandomMap(2), torch.zeros(2, 3, dtype=torch.int64), "int64"),
        (FixedMap(sources=(0, 12)), torch.zeros(2, 10), "class 1 reads source class 12"),
        (LinearHead(2), torch.zeros(2, 3, 4), r"\[2, 3, 4\][\s\S]*pool=\"mean\""),
        (LinearHead(2), torch.zeros(3), "at least"),
        (LinearHead(2, pool="mean", axis=4), torch.zeros(2, 3, 4), "no feature axis 4"),
        (LinearHead(2, pool="mean", axis=-3), torch.zeros(2, 3, 4), "no feature axis -3"),
        (LinearHead(2), torch.zeros(2, 3, dtype=torch.bool), "bool"),
    ],
)
def test_values_that_do_not_suit_are_refused(
    alignment: Alignment, values: torch.Tensor, message: str
) -> None:
    with pytest.raises(ProgramError, match=message):
        build(alignment, values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("random-map{classes=0}", "classes"),
        ("random-map{classes=true}", "classes"),
        ("random-map{classes=2.0}", "classes"),
        ("random-map{classes=2 seed=-1}", "seed"),
        ("random-map{classes=2 per_class=0}", "per_class"),
        ('random-map{classes=2 aggregate="max"}', "aggregate"),
        ('random-map{classes=2 at=""}', "at must name"),
        ("random-map", "classes"),
        ("fixed-map", "neither"),
        ("fixed-map{sources=[1 1]}", "same sources"),
        ("fixed-map{sources=[[1 2] [2 1]]}", "same sources"),
        ("fixed-map{sources=[[1 1] [2 3]]}", "repeats"),
        ("fixed-map{sources=[[1 2] [3]]}", "has 1 sources"),
        ("fixed-map{sources=[1 -2]}", "source of target class 1"),
        ("fixed-map{sources=[1 2.5]}", "source of target class 1"),
        ("fixed-map{sources=3}", "must be a tuple"),
        ("fixed-map{classes=3 sources=[1 2]}", "classes is 3"),
        ("frequency-map{classes=3 every=2}", "IterativeMap"),
        ("iterative-map{classes=3 every=null}", "FrequencyMap"),
        ("iterative-map{classes=3 every=0}", "every"),
        ('iterative-map{classes=3 collect="never"}', "collect"),
        ("bayesian-map{classes=3 smoothing=-1}", "smoothing"),
        ("bayesian-map{classes=3 smoothing=Infinity}", "smoothing"),
        ("bayesian-map{classes=3 top=0}", "top"),
        ('bayesian-map{classes=3 top="0.15"}', "top"),
        ('linear-head{classes=3 pool="max"}', "pool"),
        ("linear-head{classes=3 axis=0}", "batch"),
        ("linear-head{classes=3 bias=1}", "bias"),
        ('linear-head{classes=3 axis=1 pool="flatten"}', "flatten"),
    ],
)
def test_fields_that_make_no_sense_are_refused(text: str, message: str) -> None:
    with pytest.raises((ProgramError, FileError), match=message) as caught:
        parse_spec(text)
    assert isinstance(caught.value, GraphprogError)
