"""Inputs beside the tokens: masks, positions, token types and ids, at the longer length."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.errors import GraphprogError, PassError
from graphprog.ir.graph import Graph
from tests.models.prompts.inserted import AT, OFFSETS, compiled, entries, joined, told
from tests.models.prompts.models import SAME, made, some_ids
from tests.models.prompts.side_inputs import (
    SIDED,
    AdditiveSquare,
    CountedPositions,
    EndOfText,
    Features,
    IntMask,
    LastWord,
    MaskedWords,
    Packed,
    PositionIds,
    Sided,
    Weights,
)


@cache
def captured(kind: Callable[[], Sided], varying: bool) -> tuple[nn.Module, Graph]:
    model = made(kind)
    axes = {
        "ids": {0: "batch", 1: "sequence"},
        "side": {0: "batch", **dict.fromkeys(model.axes, "sequence")},
    }
    example = (some_ids(), model.side())
    return model, gp.capture(model, example, dynamic_axes=axes if varying else None)


def padded(side: Tensor, axes: tuple[int, ...], count: int, offset: int, fill: float) -> Tensor:
    """The reference: a side input with entries of one number between its own."""
    for axis in axes:
        shape = list(side.shape)
        shape[axis] = count
        at = side.shape[axis] if offset == -1 else offset
        head, tail = side.split([at, side.shape[axis] - at], axis)
        side = torch.cat([head, side.new_full(shape, fill), tail], axis)
    return side


def expected(model: nn.Module, ids: Tensor, side: Tensor, new: Tensor, offset: int) -> Tensor:
    longer = padded(side, model.axes, len(new), offset, model.fill)
    words = side if isinstance(model, MaskedWords) else ids
    return model.body(joined(model.table(words), new, offset), longer)


@pytest.mark.parametrize("varying", [False, True], ids=["fixed", "varying"])
@pytest.mark.parametrize("kind", SIDED, ids=lambda kind: kind.__name__)
def test_side_inputs_admit_the_inserted_entries(kind, varying) -> None:
    model, graph = captured(kind, varying)
    offset = OFFSETS[(SIDED.index(kind) + varying) % len(OFFSETS)]
    new = entries(3, model.width)
    task = compiled(graph, new, offset)
    for batch, length in ((SAME, SAME), (3, 7 if varying else SAME)):
        ids, side = some_ids(batch, length), model.side(batch, length)
        equal = torch.equal(task(ids, side), expected(model, ids, side, new, offset))
        assert equal, (offset, batch, length)
        with task.disabled():
            assert torch.equal(task(ids, side), model(ids, side))


def test_segments_are_refused_unless_the_one_of_new_entries_is_declared() -> None:
    model, graph = captured(Packed, True)
    new, ids, side = entries(3, model.width), some_ids(), model.side()
    with pytest.raises(PassError, match=r"not known .*'side'.* which eq"):
        compiled(graph, new, 1)
    task = compiled(graph, new, 1, input_roles={"side": "present"})
    assert torch.equal(task(ids, side), expected(model, ids, side, new, 1))


@pytest.mark.parametrize("varying", [False, True], ids=["fixed", "varying"])
@pytest.mark.parametrize("offset", [0, 2])
def test_declared_positions_count_the_inserted_entries(varying: bool, offset: int) -> None:
    model, graph = captured(PositionIds, varying)
    new = entries(3, model.width)
    task = compiled(graph, new, offset, input_roles={"side": "positions"})
    for batch, length in ((SAME, SAME), (3, 7 if varying else SAME)):
        ids, side = some_ids(batch, length), model.side(batch, length)
        longer = model.side(batch, length + 3)
        want = model.body(joined(model.table(ids), new, offset), longer)
        assert torch.equal(task(ids, side), want)


@pytest.mark.parametrize("varying", [False, True], ids=["fixed", "varying"])
def test_floats_are_refused_unless_their_meaning_is_declared(varying: bool) -> None:
    model, graph = captured(Weights, varying)
    new, ids, side = entries(3, model.width), some_ids(), model.side()
    with pytest.raises(PassError, match="input side"):
        compiled(graph, new, 1)
    for meaning, fill in (("present", 1.0), ("zero", 0.0)):
        task = compiled(graph, new, 1, input_roles={"side": meaning})
        longer = padded(side, (1,), 3, 1, fill)
        assert torch.equal(task(ids, side), model.body(joined(model.table(ids), new, 1), longer))


def test_features_of_equal_number_are_not_taken_for_tokens() -> None:
    model, graph = captured(Features, True)
    new = entries(3, model.width)
    for length in (SAME, 6):
        ids, side = some_ids(3, length), model.side(3)
        want = model.body(joined(model.table(ids), new, 1), side)
        assert torch.equal(compiled(graph, new, 1)(ids, side), want)


def test_features_of_equal_number_are_never_a_wrong_number() -> None:
    model, graph = captured(Features, False)
    new, ids, side = entries(3, model.width), some_ids(), model.side()
    try:
        task = compiled(graph, new, 1)
    except GraphprogError as error:
        assert "side" in told(error)  # noqa: PT017
    else:
        want = model.body(joined(model.table(ids), new, 1), side)
        assert torch.equal(task(ids, side), want)


TWICE = (AdditiveSquare, IntMask, LastWord, EndOfText, CountedPositions)


@pytest.mark.parametrize("varying", [False, True], ids=["fixed", "varying"])
@pytest.mark.parametrize("kind", TWICE, ids=lambda kind: kind.__name__)
def test_two_insertions_lengthen_a_side_input_twice(kind, varying: bool) -> None:
    model, graph = captured(kind, varying)
    one, two = entries(1, model.width, 1), entries(2, model.width, 2)
    parts = [
        gp.Concatenative(at=AT, length=1, offset=0, value=gp.Fixed(one)),
        gp.Concatenative(at=AT, length=2, offset=-1, value=gp.Fixed(two)),
    ]
    task = gp.compile(graph, gp.Program(parts))
    ids, side = some_ids(3), model.side(3)
    longer = padded(padded(side, model.axes, 1, 0, model.fill), model.axes, 2, -1, model.fill)
    words = side if issubclass(kind, MaskedWords) else ids
    x = joined(joined(model.table(words), one, 0), two, -1)
    equal = torch.equal(task(ids, side), model.body(x, longer))
    assert equal
