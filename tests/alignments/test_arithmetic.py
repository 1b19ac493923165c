"""The arithmetic of counted alignments: counts, greedy matching, weights by Bayes' rule."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphprog.alignments import (
    bayesian_weights,
    frequency_matching,
    hard_counts,
    soft_counts,
)
from graphprog.errors import ProgramError

TOY = torch.tensor([[5.0, 1.0], [4.0, 4.0], [0.0, 3.0]])


def examples(
    count: int, sources: int, classes: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = 3 * torch.randn(count, sources, generator=generator)
    return values, torch.randint(classes, (count,), generator=generator)


def greedy_by_definition(counts: torch.Tensor, per_class: int) -> list[list[int]]:
    """The matching as published: argmax of the whole table, then rows and columns struck out."""
    table = counts.clone()
    picks: list[list[int]] = [[] for _ in range(table.shape[1])]
    for _ in range(table.shape[1] * per_class):
        row, column = divmod(int(table.flatten().argmax()), table.shape[1])
        picks[column].append(row)
        table[row] = -1
        if len(picks[column]) == per_class:
            table[:, column] = -1
    return picks


count_tables = (
    st.integers(2, 12)
    .flatmap(
        lambda rows: st.integers(1, rows).flatmap(
            lambda columns: st.lists(
                st.integers(0, 6), min_size=rows * columns, max_size=rows * columns
            ).map(lambda cells: torch.tensor(cells, dtype=torch.float64).reshape(rows, columns))
        )
    )
    .filter(lambda table: bool(table.any()))
)


def test_frequency_matching_of_the_toy_table() -> None:
    matching = frequency_matching(TOY)
    assert matching.sources.tolist() == [[0], [1]]
    assert matching.sources.dtype == torch.int64
    assert matching.leftover == ()
    assert matching.ties == 0


def test_bayesian_weights_of_the_toy_table() -> None:
    expected = torch.tensor([[0.6164, 0.1068], [0.3836, 0.3323], [0.0, 0.5608]])
    torch.testing.assert_close(bayesian_weights(TOY).float(), expected, atol=1e-4, rtol=0)


@given(count_tables, st.integers(1, 3))
def test_matching_is_the_published_one_and_uses_rows_once(
    counts: torch.Tensor, per_class: int
) -> None:
    rows, columns = counts.shape
    if columns * per_class > rows:
        with pytest.raises(ProgramError, match="cannot be matched"):
            frequency_matching(counts, per_class)
        return
    matching = frequency_matching(counts, per_class)
    picked = matching.sources.tolist()
    assert picked == greedy_by_definition(counts, per_class)
    assert len(set(itertools.chain(*picked))) == columns * per_class
    without = [t for t, row in enumerate(picked) if any(counts[s, t] == 0 for s in row)]
    assert list(matching.leftover) == without


def test_equal_counts_go_to_the_lowest_row_then_column_and_are_reported() -> None:
    square = frequency_matching(torch.tensor([[2.0, 2.0], [2.0, 2.0]]))
    assert square.sources.tolist() == [[0], [1]]
    assert square.ties == 1
    assert frequency_matching(torch.tensor([[2.0, 2.0], [0.0, 1.0]])).ties == 1
    diagonal = frequency_matching(torch.diag(torch.tensor([2.0, 2.0])))
    assert diagonal.ties == 0
    pair = torch.tensor([[3.0], [3.0], [1.0]])
    assert frequency_matching(pair, per_class=1).ties == 1
    assert frequency_matching(pair, per_class=2).ties == 0


def test_large_tables_are_matched_as_published() -> None:
    values, labels = examples(20000, 1000, 100, seed=0)
    counts = hard_counts(values, labels, 100)
    assert frequency_matching(counts, 5).sources.tolist() == greedy_by_definition(counts, 5)


@given(count_tables, st.sampled_from([0.0, 0.5, 1.0, 10.0]))
def test_every_column_of_weights_sums_to_one(counts: torch.Tensor, smoothing: float) -> None:
    weights = bayesian_weights(counts, smoothing)
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(0), torch.ones(counts.shape[1], dtype=torch.float64))


def test_hard_and_soft_counts_follow_their_definitions() -> None:
    values, labels = examples(40, 7, 3, seed=1)
    hard, soft = torch.zeros(7, 3, dtype=torch.float64), torch.zeros(7, 3, dtype=torch.float64)
    for row, label in zip(values, labels, strict=True):
        hard[row.argmax(), label] += 1
        probabilities = row.softmax(0)
        for source in row.argsort(descending=True)[:2]:
            soft[source, label] += probabilities[source]
    assert torch.equal(hard_counts(values, labels, 3), hard)
    counted = soft_counts(values, labels, 3, 2)
    assert counted.dtype == torch.float64
    torch.testing.assert_close(counted, soft, atol=1e-6, rtol=0)
