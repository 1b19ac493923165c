"""What cannot be lengthened is refused with its reason, and nothing is ever silently wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional

import graphprog as gp
from graphprog.errors import PassError
from graphprog.ir.graph import Graph
from graphprog.passes.extend_axis.literal_search import cannot_follow
from tests.models.prompts.ambiguous import DOUBTFUL, PaddedUp, PooledByLength
from tests.models.prompts.inserted import AT, VARYING, compiled, entries, joined, told
from tests.models.prompts.models import SAME, Prompted, made, some_ids
from tests.models.prompts.traps import REFUSED, RotaryTable, SharedTable, Table


@cache
def captured(kind: Callable[[], Prompted], varying: bool = False) -> tuple[nn.Module, Graph]:
    model = made(kind)
    return model, gp.capture(model, (some_ids(),), dynamic_axes=VARYING if varying else None)


def refusal(graph: Graph, **options: object) -> str:
    with pytest.raises(PassError) as caught:
        compiled(graph, entries(3, graph.nodes["embedding"].meta["val"].shape[-1]), 1, **options)
    text = str(caught.value)
    assert "defect" not in text, text
    return text


WHERE = {
    "Mixer": "linear",
    "Windows": "view",
    "Square2D": "reshape",
    "Table": "tensor positions (1, 4, 16)",
    "RotaryTable": "tensor cos (4, 16)",
    "BiasTable": "add|view|scaled_dot_product_attention|bias",
    "InBatch": "view",
    "Sibling": "embedding",
    "Unbound": "unbind",
    "Halves": "split",
    "Joined": "linear",
    "Normalized": "layer_norm",
}


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.__name__)
def test_a_refusal_names_what_stands_in_the_way(kind: Callable[[], Prompted]) -> None:
    _, graph = captured(kind)
    axis = 0 if kind.__name__ == "InBatch" else 1
    text = refusal(graph) if axis else refusal_on_axis(graph, axis)
    names = WHERE[kind.__name__]
    assert any(name in text for name in names.split("|")), text
    if kind.__name__ not in ("Table", "RotaryTable"):
        assert "tests/models/prompts/" in text or "torch/nn" in text, text


def refusal_on_axis(graph: Graph, axis: int) -> str:
    part = gp.Concatenative(at=AT, length=3, axis=axis)
    with pytest.raises(PassError) as caught:
        gp.compile(graph, gp.Program([part]))
    assert "defect" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.__name__)
def test_the_place_a_refusal_recommends_works(kind: Callable[[], Prompted]) -> None:
    _, graph = captured(kind)
    axis = 0 if kind.__name__ == "InBatch" else 1
    text = refusal_on_axis(graph, axis)
    for at in re.findall(r"at='([^']+)'", text):
        part = gp.Concatenative(at=at, length=3, axis=axis)
        task = gp.compile(graph, gp.Program([part]))
        assert task(some_ids(3)).isfinite().all()
        with task.disabled():
            assert torch.equal(task(some_ids(3)), captured(kind)[0](some_ids(3)))


def test_the_place_behind_a_table_is_recommended() -> None:
    _, graph = captured(Table)
    text = refusal(graph)
    assert "at='" in text
    key = re.findall(r"at='([^']+)'", text)[0]
    nodes = list(graph.nodes)
    behind = graph.interfaces().resolve(key).node
    assert nodes.index(behind) > nodes.index(graph.interfaces()[AT].node)


def test_zeros_stand_for_inserted_entries_in_a_table_that_is_added() -> None:
    model, graph = captured(Table)
    for offset in (0, 1, -1):
        new, ids = entries(3, model.width), some_ids(3)
        at = SAME if offset == -1 else offset
        position = model.positions
        longer = torch.cat([position[:, :at], torch.zeros(1, 3, model.width), position[:, at:]], 1)
        y = joined(model.table(ids), new, offset) + longer
        task = compiled(graph, new, offset, tables="zeros")
        want = model.head(_attended(y))
        assert torch.equal(task(ids), want)


def _attended(x: torch.Tensor) -> torch.Tensor:
    from tests.models.prompts.models import attended

    return attended(x)


def test_what_is_padded_up_to_a_length_would_be_cut_beyond_it() -> None:
    _, graph = captured(PaddedUp, varying=True)
    text = refusal(graph)
    assert "pads up to a length" in text
    assert "tests/models/prompts/" in text


class Strided(nn.Module):
    """A convolution padded to a multiple of its stride, as the picture's size asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        uneven = x.shape[-1] % 2 == 0
        return self.conv(functional.pad(x, (0 if uneven else 1, 1, 0, 1)))


class Tiles(nn.Module):
    """Tiles of two by two."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.unfold(x, 2, stride=2)


class Pointed(nn.Module):
    """Pixels that are laid out again when one is left, by its number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).flatten(2).reshape(-1, 4, 1, 1)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Strided(), "padding by 0 and 1 was chosen"),
        (Tiles(), "windows of 2 do not cover"),
        (Pointed(), "one entry here, which may belong to any of several dimensions: reshape"),
    ],
    ids=["strided", "tiles", "pointed"],
)
def test_what_was_chosen_for_a_length_is_refused_at_another(model: nn.Module, said: str) -> None:
    graph = gp.capture(model.eval(), (torch.randn(2, 3, 8, 8),))
    length = 8 if isinstance(model, Pointed) else 5
    with pytest.raises(PassError, match=said):
        gp.compile(graph, gp.Program([gp.Concatenative(at="input", axis=3, length=length)]))


def test_tiles_that_fit_are_cut() -> None:
    graph = gp.capture(Tiles(), (torch.randn(2, 3, 8, 8),))
    task = gp.compile(graph, gp.Program([gp.Concatenative(at="input", axis=3, length=4)]))
    assert task(torch.randn(2, 3, 8, 8)).shape == (2, 12, 24)


def test_zeros_are_refused_in_a_table_that_multiplies() -> None:
    for kind in (RotaryTable, SharedTable):
        _, graph = captured(kind)
        assert "not added" in refusal(graph, tables="zeros")


def test_an_operation_that_says_nothing_is_refused_all_the_same() -> None:
    assert cannot_follow("") == "it cannot follow the longer axis"
    assert cannot_follow("too long\nby far") == "it cannot follow the longer axis (too long)"


@pytest.mark.parametrize("varying", [False, True], ids=["fixed", "varying"])
@pytest.mark.parametrize("kind", DOUBTFUL, ids=lambda kind: kind.__name__)
def test_a_length_without_a_sign_is_right_or_refused(kind, varying: bool) -> None:
    varying &= kind is not PooledByLength
    model, graph = captured(kind, varying)
    new, ids = entries(3, model.width), some_ids(3)
    try:
        task = compiled(graph, new, 1)
    except PassError as error:
        told(error)
        if varying:
            raise
        return
    equal = torch.equal(task(ids), model.body(joined(model.table(ids), new, 1)))
    assert equal
