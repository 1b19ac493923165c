"""Entries inserted into small models whose lengths are all equal: exact, or it is no use."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.errors import GraphprogError
from graphprog.ir.graph import Graph
from tests.models.prompts.masks import MASKED
from tests.models.prompts.models import SAME, Prompted, made, some_ids
from tests.models.prompts.shapes import FIXED, SHAPED

PLAIN = SHAPED + MASKED
"""Models without further inputs; every one can be lengthened."""

AT = "place:out"
VARYING = {"ids": {0: "batch", 1: "sequence"}}
OFFSETS = (0, 1, 3, -1)


@cache
def captured(kind: Callable[[], Prompted], varying: bool) -> tuple[nn.Module, Graph]:
    model = made(kind)
    axes = VARYING if varying else None
    return model, gp.capture(model, (some_ids(),), dynamic_axes=axes)


def entries(length: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(length, width, generator=torch.Generator().manual_seed(seed))


def joined(x: Tensor, new: Tensor, offset: int) -> Tensor:
    """The reference: a sequence with entries between its own."""
    offset = x.shape[1] if offset == -1 else offset
    return torch.cat([x[:, :offset], new.expand(len(x), -1, -1), x[:, offset:]], 1)


def told(error: GraphprogError) -> str:
    """The text of a refusal, which is no crash."""
    text = str(error)
    assert "defect" not in text, text
    return text


def compiled(graph: Graph, new: Tensor, offset: int, **options: object) -> nn.Module:
    part = gp.Concatenative(at=AT, length=len(new), offset=offset, value=gp.Fixed(new), **options)
    return gp.compile(graph, gp.Program([part]))


@pytest.mark.parametrize("varying", [False, True], ids=["fixed", "varying"])
@pytest.mark.parametrize("kind", PLAIN, ids=lambda kind: kind.__name__)
def test_inserted_entries_are_what_a_longer_sequence_is(kind, varying) -> None:
    model, graph = captured(kind, varying and kind not in FIXED)
    offset = OFFSETS[(PLAIN.index(kind) + varying) % len(OFFSETS)]
    new = entries(3, model.width)
    task = compiled(graph, new, offset)
    for batch, length in ((SAME, SAME), (3, 7 if varying and kind not in FIXED else SAME)):
        ids = some_ids(batch, length)
        expected = model.body(joined(model.table(ids), new, offset))
        equal = torch.equal(task(ids), expected)
        assert equal, (offset, batch, length)
        with task.disabled():
            assert torch.equal(task(ids), model(ids))
