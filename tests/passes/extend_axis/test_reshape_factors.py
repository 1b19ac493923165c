"""Lining up the factors of reshapes, against what PyTorch does to numbered elements."""

from __future__ import annotations

import math

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprog.passes.extend_axis.reshape_factors import Factor, SplitError, length, reshaped, whole

S = sympy.Symbol("S", integer=True, positive=True)
B = sympy.Symbol("B", integer=True, positive=True)


def dims(*sizes: object, axis: int, added: int = 3) -> list:
    """Dimensions of one part, one of which grows."""
    return [
        whole(size, size + added if dim == axis else size)  # type: ignore[operator,arg-type]
        for dim, size in enumerate(sizes)
    ]


def lengths(parts: list) -> list:
    return [length(factors) for factors in parts]


def test_the_width_is_split_even_where_it_is_as_long_as_the_axis() -> None:
    assert lengths(reshaped(dims(B, 4, 4, axis=1), [B, 4, 2, 2])) == [B, 7, 2, 2]
    assert lengths(reshaped(dims(B, 4, 4, axis=2), [B, 2, 2, 4])) == [B, 2, 2, 7]


def test_merged_dimensions_remember_their_parts() -> None:
    merged = reshaped(dims(B, 4, 16, axis=1), [4 * B, 16])
    assert lengths(merged) == [sympy.expand(7 * B), 16]
    assert lengths(reshaped(merged, [B, 4, 4, 4])) == [B, 7, 4, 4]
    heads = reshaped(dims(B, 4, 4, 4, axis=2), [4 * B, 4, 4])
    assert lengths(heads) == [4 * B, 7, 4]
    assert lengths(reshaped(heads, [B, 4, 4, 4])) == [B, 4, 7, 4]


def test_dimensions_of_one_entry_come_and_go() -> None:
    assert lengths(reshaped(dims(1, 4, 8, axis=1), [4, 1, 8, 1])) == [7, 1, 8, 1]
    assert lengths(reshaped(dims(4, 8, axis=0), [1, 1, 4, 8])) == [1, 1, 7, 8]


def test_symbolic_lengths_line_up() -> None:
    assert lengths(reshaped(dims(B, S, 6, axis=1), [B * S, 3, 2])) == [
        sympy.expand(B * (S + 3)),
        3,
        2,
    ]
    assert lengths(reshaped(dims(S, B, 6, axis=0), [S, 2 * B, 3])) == [S + 3, 2 * B, 3]


@pytest.mark.parametrize(
    ("sizes", "axis", "target"),
    [
        ((2, 4, 3), 1, [2, 2, 2, 3]),  # windows
        ((2, 4, 3), 1, [4, 2, 3]),
        ((2, 16, 3), 1, [2, 4, 4, 3]),  # a grid
        ((4, 6), 0, [2, 12]),
    ],
)
def test_cutting_the_axis_is_refused(sizes, axis, target) -> None:
    with pytest.raises(SplitError):
        reshaped(dims(*sizes, axis=axis), target)


def test_a_part_that_does_not_grow_may_be_cut_anywhere() -> None:
    assert lengths(reshaped(dims(6, 4, axis=1), [2, 3, 4])) == [2, 3, 7]
    assert lengths(reshaped(dims(6, 4, 10, axis=1), [2, 12, 10])) == [2, 21, 10]
    assert lengths(reshaped(dims(4, 10, axis=0), [4, 5, 2])) == [7, 5, 2]


def test_a_factor_moves_when_its_length_changes() -> None:
    one = sympy.Integer(1)
    assert Factor(one, one + 1).moves
    assert not Factor(one, one).moves


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[list[int], int, list[int]]:
    """A shape, its axis, and another shape: atoms that are merged in two ways; the axis is one."""
    atoms = draw(st.lists(st.integers(1, 4), min_size=2, max_size=6))
    axis = draw(st.integers(0, len(atoms) - 1))
    cuts = st.lists(st.booleans(), min_size=len(atoms) - 1, max_size=len(atoms) - 1)

    def merged(cut: list[bool]) -> list[list[int]]:
        groups = [[0]]
        for atom, new in enumerate(cut, 1):
            groups.append([atom]) if new else groups[-1].append(atom)
        return groups

    before = merged(draw(cuts))
    # the axis stands alone in what is reshaped
    before = [part for group in before for part in _alone(group, axis)]
    after = merged(draw(cuts))
    shape = [math.prod(atoms[atom] for atom in group) for group in before]
    target = [math.prod(atoms[atom] for atom in group) for group in after]
    return shape, before.index([axis]), target


def _alone(group: list[int], axis: int) -> list[list[int]]:
    if axis not in group:
        return [group]
    at = group.index(axis)
    return [part for part in (group[:at], [axis], group[at + 1 :]) if part]


@settings(max_examples=200, deadline=None)
@given(reshape=reshapes(), added=st.integers(1, 3))
def test_where_the_axis_goes_is_where_its_entries_go(reshape, added: int) -> None:
    """Entries that were there before keep their coordinates, but on the axis."""
    shape, axis, target = reshape
    parts = dims(*shape, axis=axis, added=added)
    try:
        longer = [int(size) for size in lengths(reshaped(parts, target))]
    except SplitError:
        return  # numbers may line up so that the axis is cut, and then nothing is claimed
    longer_shape = [size + added * (dim == axis) for dim, size in enumerate(shape)]
    place = torch.arange(longer_shape[axis])
    place = place.view([-1 if dim == axis else 1 for dim in range(len(shape))])
    kept = place.expand(longer_shape).reshape(longer).flatten() < shape[axis]
    old = torch.unravel_index(torch.arange(math.prod(target)), target)
    new = torch.unravel_index(torch.arange(math.prod(longer)), longer)
    moving = [dim for dim, (one, two) in enumerate(zip(target, longer, strict=True)) if one != two]
    assert len(moving) == 1
    for dim in set(range(len(target))) - set(moving):
        assert torch.equal(new[dim][kept], old[dim])
    if target[moving[0]] == shape[axis]:
        assert torch.equal(new[moving[0]][kept], old[moving[0]])


@settings(max_examples=100, deadline=None)
@given(reshape=reshapes())
def test_nothing_moves_where_nothing_grows(reshape) -> None:
    shape, _, target = reshape
    parts = [whole(size, size) for size in shape]
    assert lengths(reshaped(parts, target)) == target
