"""Counted alignments: refresh, reports, guards, and independence of the order of the data."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprog.alignments import (
    BayesianMap,
    FrequencyMap,
    IterativeMap,
    MappingReport,
    StatisticalAlignment,
    StatisticalModule,
)
from graphprog.errors import DataError
from graphprog.values.context import BuildContext

COUNTED = [
    FrequencyMap(4),
    IterativeMap(4, per_class=2, aggregate="logsumexp"),
    BayesianMap(4),
    BayesianMap(4, top=0.5),
]


def build(alignment: StatisticalAlignment, sources: int) -> StatisticalModule:
    module = alignment.build(BuildContext(torch.zeros(2, sources)))
    assert isinstance(module, StatisticalModule)
    return module


def examples(
    count: int, sources: int, classes: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = 3 * torch.randn(count, sources, generator=generator)
    return values, torch.randint(classes, (count,), generator=generator)


@pytest.mark.parametrize(
    ("classes", "k"), [(10, 1), (43, 6), (47, 7), (102, 15), (5, 1), (20, 3), (100, 15)]
)
def test_likeliest_classes_counted_with_the_share_of_the_paper(classes: int, k: int) -> None:
    assert BayesianMap(classes, top=0.15).likeliest(1000) == k
    assert BayesianMap(classes).likeliest(1000) is None


def test_likeliest_classes_never_exceed_the_source() -> None:
    assert BayesianMap(100, top=0.15).likeliest(3) == 3


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 64), st.permutations(range(64)))
def test_counts_of_parts_in_any_order_sum_to_those_of_the_whole(
    seed: int, cut: int, order: list[int]
) -> None:
    values, labels = examples(64, 9, 4, seed)
    values = values.double()  # whose probabilities, unlike those of float32, sum inexactly
    for alignment in COUNTED:
        whole, parts = build(alignment, 9), build(alignment, 9)
        counts = whole.count(values, labels)
        first, second = order[:cut], order[cut:]
        summed = parts.count(values[first], labels[first])
        summed += parts.count(values[second], labels[second])
        assert torch.equal(summed, counts)
        assert whole.refresh(counts) == parts.refresh(summed)
        states = zip(whole.state_dict().values(), parts.state_dict().values(), strict=True)
        assert all(torch.equal(left, right) for left, right in states)


@pytest.mark.parametrize("alignment", COUNTED, ids=str)
def test_counting_is_exact_under_autocast_and_leaves_no_gradient(
    alignment: StatisticalAlignment,
) -> None:
    values, labels = examples(32, 9, 4, seed=2)
    module = build(alignment, 9)
    plain = module.count(values, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = module.count(values.requires_grad_(), labels)
    assert torch.equal(plain, mixed)
    assert mixed.dtype == torch.float64
    assert not mixed.requires_grad
    half = values.detach().bfloat16()
    assert torch.equal(module.count(half, labels), module.count(half.float(), labels))


@pytest.mark.parametrize("alignment", [FrequencyMap(6), IterativeMap(6)], ids=str)
def test_a_source_that_predicts_the_targets_is_mapped_to_itself(
    alignment: StatisticalAlignment,
) -> None:
    labels = torch.arange(6).repeat(5)
    values = 4.0 * torch.nn.functional.one_hot(labels, 6).float()
    module = build(alignment, 6)
    report = module.refresh(module.count(values, labels))
    assert torch.equal(module(values), values)
    assert report == MappingReport(sources=6, classes=6, total=30.0)
    assert report.warning == ""


@pytest.mark.parametrize("alignment", COUNTED, ids=str)
def test_before_a_refresh_the_first_classes_are_read(alignment: StatisticalAlignment) -> None:
    module = build(alignment, 9)
    assert not module.refreshed
    values = torch.zeros(4, 9)
    width = getattr(alignment, "per_class", 1)
    values[torch.arange(4), torch.arange(4) * width] = 9.0
    assert module(values).argmax(1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("alignment", COUNTED, ids=str)
def test_an_absent_class_keeps_its_place_and_is_reported(alignment: StatisticalAlignment) -> None:
    values, labels = examples(60, 9, 3, seed=3)
    labels[labels == 1] = 3
    module = build(alignment, 9)
    report = module.refresh(module.count(values, labels))
    assert report.empty == (1,)
    assert 1 in report.leftover
    assert "no training example was counted for target class 1" in report.warning
    assert report.warning in str(report)
    assert ("never predicted" in report.warning) == (report.leftover != report.empty)
    assert module(values).shape == (60, 4)
    assert bool(module(values).isfinite().all())
    if isinstance(alignment, BayesianMap):
        torch.testing.assert_close(module(values)[:, 1], values.mean(1))
        assert report.k == alignment.likeliest(9)


def test_leftover_sources_are_reported_for_classes_that_were_counted() -> None:
    module = build(FrequencyMap(2), 4)
    report = module.refresh(torch.tensor([[5, 4], [0, 0], [0, 0], [0, 0]]))
    assert report.empty == ()
    assert report.leftover == (1,)
    assert report.unpredicted == 3
    assert "target class 1 got source classes that were never predicted" in report.warning


@pytest.mark.parametrize("alignment", COUNTED, ids=str)
def test_a_refresh_is_saved_in_place_and_constant_for_autograd(
    alignment: StatisticalAlignment,
) -> None:
    values, labels = examples(80, 9, 4, seed=4)
    module = build(alignment, 9)
    before = dict(module.named_buffers())
    module.refresh(module.count(values, labels))
    assert all(buffer is before[name] for name, buffer in module.named_buffers())
    assert list(module.parameters()) == []
    copy = build(alignment, 9)
    copy.load_state_dict(module.state_dict())
    assert copy.refreshed
    assert torch.equal(copy(values), module(values))
    values.requires_grad_()
    module(values).square().sum().backward()
    assert values.grad is not None
    assert bool(values.grad.any())
    assert not any(buffer.requires_grad for buffer in module.buffers())


@pytest.mark.parametrize("alignment", COUNTED, ids=str)
@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (torch.zeros(3, 9), torch.tensor([0, 4, 1]), "label 4 of example 1 is outside 0 to 3"),
        (torch.zeros(3, 9), torch.tensor([0, 1, -1]), "label -1 of example 2"),
        (torch.zeros(3, 9), torch.zeros(3), r"torch.float32 \[3\]"),
        (torch.zeros(3, 9), torch.zeros(2, dtype=torch.int64), r"int64 labels \[3\]"),
        (torch.zeros(3, 9), torch.zeros(3, 4, dtype=torch.int64), "one-hot"),
        (
            torch.zeros(3, 8),
            torch.zeros(3, dtype=torch.int64),
            "8 source classes, but the mapping has 9",
        ),
        (torch.zeros(3, 9, 1), torch.zeros(3, dtype=torch.int64), r"\[3, 9, 1\]"),
        (torch.full((3, 9), torch.nan), torch.zeros(3, dtype=torch.int64), "not finite"),
        (torch.full((3, 9), torch.inf), torch.zeros(3, dtype=torch.int64), "not finite"),
    ],
)
def test_examples_that_cannot_be_counted_are_refused(
    alignment: StatisticalAlignment, values: torch.Tensor, labels: torch.Tensor, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        build(alignment, 9).count(values, labels)


@pytest.mark.parametrize("alignment", COUNTED, ids=str)
@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (torch.zeros(9, 4), "all counts are zero"),
        (torch.ones(4, 9), r"must be \[9, 4\], not \[4, 9\]"),
        (torch.full((9, 4), torch.nan), "finite"),
        (torch.full((9, 4), -1.0), "not negative"),
    ],
)
def test_impossible_counts_leave_the_mapping_alone(
    alignment: StatisticalAlignment, counts: torch.Tensor, message: str
) -> None:
    module = build(alignment, 9)
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with pytest.raises(DataError, match=message):
        module.refresh(counts)
    assert all(torch.equal(before[name], buffer) for name, buffer in module.named_buffers())
