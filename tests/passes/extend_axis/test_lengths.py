"""Lengths at the edges: axes of one entry, batches of one, values merged with the batch."""

from __future__ import annotations

import pytest
import torch

import graphprog as gp
from graphprog.errors import GraphprogError
from tests.models.prompts.inserted import AT, PLAIN, VARYING, compiled, entries, joined, told
from tests.models.prompts.masks import SlicedPositions
from tests.models.prompts.models import Prompted, made, some_ids


@pytest.mark.parametrize("kind", PLAIN, ids=lambda kind: kind.__name__)
def test_an_axis_of_one_entry_is_right_or_refused(kind) -> None:
    """What is read beside it broadcasts, so that nothing need look wrong."""
    model = made(kind)
    graph = gp.capture(model, (some_ids(3, 1),))
    new, ids = entries(2, model.width), some_ids(3, 1)
    try:
        task = compiled(graph, new, 1)
    except GraphprogError as error:
        told(error)
        return
    equal = torch.equal(task(ids), model.body(joined(model.table(ids), new, 1)))
    assert equal


class Bottom(Prompted):
    """Only a mean of the tokens leaves the model, through a residual of its own."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        y = x.mean(1)
        return self.head(y + self.mix(y))


def test_a_length_is_not_bounded_by_what_was_inserted() -> None:
    """The sizes known of the source stay free: it still runs on one token, and on many."""
    model = made(Bottom)
    graph = gp.capture(model, (some_ids(),), dynamic_axes=VARYING)
    task = compiled(graph, entries(3, model.width), 1)
    for batch, length in ((1, 1), (1, 30), (7, 2)):
        ids = some_ids(batch, length)
        want = model.body(joined(model.table(ids), entries(3, model.width), 1))
        assert torch.equal(task(ids), want)
    assert torch.equal(graph(some_ids(1, 1)), model(some_ids(1, 1)))


def test_more_entries_than_a_table_has_positions_are_refused() -> None:
    model = made(SlicedPositions)
    graph = gp.capture(model, (some_ids(),))
    with pytest.raises(GraphprogError, match="20"):
        compiled(graph, entries(17, model.width), 1)
    assert compiled(graph, entries(16, model.width), 1)(some_ids()).isfinite().all()


def test_another_axis_than_the_tokens_is_refused_where_weights_are_as_wide() -> None:
    graph = gp.capture(made(Bottom), (some_ids(),))
    with pytest.raises(GraphprogError, match=r"mix.weight|linear"):
        gp.compile(graph, gp.Program([gp.Concatenative(at=AT, length=2, axis=2)]))
