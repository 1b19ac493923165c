"""Greedy matching of target classes to the source classes predicted for them most often."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy
import torch

from graphprog.errors import DataError, ProgramError


@dataclass(frozen=True)
class Matching:
    """Result of :func:`frequency_matching`.

    Attributes:
        sources: int64 [K_T, m] on the CPU; row t holds the source classes of target t in the
            order in which they were picked, most frequent first. All K_T * m are different.
        leftover: target classes with a source that was never predicted for them.
        ties: number of picks that the tie rule decided.
    """

    sources: torch.Tensor
    leftover: tuple[int, ...]
    ties: int


def check_counts(counts: torch.Tensor) -> torch.Tensor:
    """Check counts and convert them to float64 on the CPU.

    Raises:
        DataError: they are not of rank 2, negative, not finite, or all zero.
    """
    if counts.ndim != 2:
        raise DataError(
            f"counts must be [source classes, target classes], not {list(counts.shape)}"
        )
    exact = counts.detach().cpu().to(torch.float64)
    if not bool((exact.isfinite() & (exact >= 0)).all()):
        raise DataError("counts must be finite and not negative")
    if not bool(exact.any()):
        raise DataError("all counts are zero", ["count at least one labeled example first"])
    return exact


def frequency_matching(counts: torch.Tensor, per_class: int = 1) -> Matching:
    """Match each target class to its most frequent source classes, each used at most once.

    Repeat K_T * m times: pick the largest count of all open cells, at ties the one with the lowest
    row-major index s * K_T + t; then close source row s, and target column t after m picks (FLM;
    Chen et al. 2023, arXiv:2211.11635; m = 1 there). Once all open cells are zero, this rule
    assigns the leftover rows, in order, to the columns still open.

    Args:
        counts: [K_S, K_T], not negative.
        per_class: m, with K_T * m <= K_S.

    Raises:
        DataError: counts of another rank, negative, not finite, or all zero.
        ProgramError: K_T * m > K_S.
    """
    exact = check_counts(counts)
    rows, columns = exact.shape
    if columns * per_class > rows:
        raise ProgramError(
            f"{columns} target classes with {per_class} source classes each cannot be matched "
            f"one to one with {rows} source classes"
        )
    picks, ties = _pick_frequent(exact, per_class)
    leftover = tuple(target for target, picked in enumerate(picks) if len(picked) < per_class)
    used = {source for picked in picks for source in picked}
    unused = (source for source in range(rows) if source not in used)
    for target in leftover:
        picks[target] += itertools.islice(unused, per_class - len(picks[target]))
    return Matching(torch.tensor(picks), leftover, ties)


def _pick_frequent(counts: torch.Tensor, per_class: int) -> tuple[list[list[int]], int]:
    """Greedy picks among the cells above zero, for each column, and the number of ties."""
    rows, columns = counts.shape
    table = counts.numpy()
    row_open = numpy.ones(rows, dtype=bool)
    room = numpy.full(columns, per_class)
    picks: list[list[int]] = [[] for _ in range(columns)]
    ties = 0
    for cell in _frequent_cells(counts):
        row, column = divmod(cell, columns)
        if not row_open[row] or not room[column]:
            continue
        rivals_in_row = ((table[row] == table[row, column]) & (room > 0)).sum()
        rivals_in_column = ((table[:, column] == table[row, column]) & row_open).sum()
        ties += int(rivals_in_row > 1 or rivals_in_column > room[column])
        picks[column].append(row)
        row_open[row] = False
        room[column] -= 1
    return picks, ties


def _frequent_cells(counts: torch.Tensor) -> list[int]:
    """Row-major indices of the cells above zero, largest count first, lowest index at ties."""
    flat = counts.reshape(-1)
    present = flat.nonzero().squeeze(1)
    order = flat[present].sort(descending=True, stable=True).indices
    return [int(cell) for cell in present[order].tolist()]
