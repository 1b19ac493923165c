"""Entries inserted into small models whose lengths are all equal: exact, or it is no use."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.ir.graph import Graph
from tests.models.prompts.inserted import OFFSETS, PLAIN, VARYING, compiled, entries, joined
from tests.models.prompts.models import SAME, Prompted, made, some_ids
from tests.models.prompts.shapes import FIXED


@cache
def captured(kind: Callable[[], Prompted], varying: bool) -> tuple[nn.Module, Graph]:
    model = made(kind)
    axes = VARYING if varying else None
    return model, gp.capture(model, (some_ids(),), dynamic_axes=axes)


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
