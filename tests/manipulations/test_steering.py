from __future__ import annotations

import pytest
import torch

import graphprog as gp
from graphprog.errors import InterfaceError, ProgramError
from tests.models.zoo import CASES, captured
from tests.support import oracle
from tests.support.comparisons import same


@pytest.mark.parametrize("shape", [(8, 8, 8), (8, 1, 1), (1, 8, 8), (8,), ()])
def test_steering_with_any_shape_that_broadcasts(shape: tuple[int, ...]) -> None:
    model, graph = captured("residual")
    (x,), _ = CASES["residual"].call(3)
    vector = torch.randn(shape)
    expected = oracle.changed(model, {"blocks.1:out": lambda v: v + vector}, (x,), {})
    for value in (gp.Fixed(vector), gp.Learnable(shape=shape)):
        task = gp.compile(graph, gp.Program([gp.Additive(at="hidden[1]", value=value)]))
        if isinstance(value, gp.Learnable):
            task.load_program_state({"program.additive.value": vector})
        assert same(task(x), expected)


def test_steering_tokens_with_a_vector_of_their_width() -> None:
    model, graph = captured("transformer")
    args, kwargs = CASES["transformer"].call(3)
    vector = torch.randn(16)
    task = gp.compile(graph, gp.Program([gp.Additive(at="hidden[1]", value=gp.Fixed(vector))]))
    expected = oracle.changed(model, {"layers.1:out": lambda v: v + vector}, args, kwargs)
    assert same(task(**kwargs), expected)


@pytest.mark.parametrize("shape", [(7,), (8, 8), (3, 8, 8), (2, 8, 8, 8)])
def test_what_does_not_broadcast_is_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    _, graph = captured("residual")
    for value in (gp.Fixed(torch.zeros(shape)), gp.Learnable(shape=shape)):
        if shape == (8, 8):
            gp.compile(graph, gp.Program([gp.Additive(at="hidden[0]", value=value)]))
            continue
        with pytest.raises(ProgramError, match="does not broadcast to") as caught:
            gp.compile(graph, gp.Program([gp.Additive(at="hidden[0]", value=value)]))
        assert str(shape) in str(caught.value)
        assert "blocks.0:out" in str(caught.value) or "_Pattern" in str(caught.value)


def test_a_vector_of_channels_is_told_the_shape_it_needs() -> None:
    _, graph = captured("sequential")
    program = gp.Program([gp.Additive(at="hidden[0]", value=gp.Fixed(torch.zeros(8)))])
    with pytest.raises(ProgramError, match=r"use shape \(8, 1, 1\) for one value per channel"):
        gp.compile(graph, program)


def test_a_pattern_for_a_length_that_varies_is_refused_and_spoils_nothing() -> None:
    _, graph = captured("transformer")
    for length in (6, 7):  # 6 is the length at capture
        value = gp.Learnable(shape=(length, 16))
        program = gp.Program([gp.Additive(at="embedding", value=value)])
        with pytest.raises(ProgramError, match="dynamic axes"):
            gp.compile(graph, program)
    _, kwargs = CASES["transformer"].call(5)
    task = gp.compile(graph, gp.Program([gp.Additive(at="embedding")]))
    assert same(task(**kwargs), graph(**kwargs))


def test_integers_cannot_be_added_to() -> None:
    _, graph = captured("transformer")
    with pytest.raises(InterfaceError, match=r"(?s)input_ids has dtype torch.int64.*'tokens'"):
        gp.compile(graph, gp.Program([gp.Additive(at="input:input_ids")]))
