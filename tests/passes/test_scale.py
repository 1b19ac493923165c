"""Scaling by a learned vector."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import graphprog as gp
from graphprog.errors import InterfaceError
from tests.models.zoo import CASES, captured
from tests.support import oracle
from tests.support.comparisons import same


def linear_keys(graph: gp.Graph) -> list[str]:
    return [k for k in graph.interfaces() if k.startswith("layers.") and k.count(".") == 2][:3]


def test_scaling_is_a_product_along_the_last_axis(tmp_path: Path) -> None:
    model, graph = captured("transformer")
    _, kwargs = CASES["transformer"].call(3)
    keys = linear_keys(graph)
    task = gp.compile(graph, gp.Program([gp.Scale(at=key) for key in keys]))
    assert same(task(**kwargs), graph(**kwargs))
    state = task.program_state()
    assert all(value.ndim == 1 and (value == 1).all() for value in state.values())
    for value in state.values():
        value.normal_()
    task.load_program_state(state)
    values = list(state.values())
    change = {key: lambda x, v=v: x * v for key, v in zip(keys, values, strict=True)}
    assert same(task(**kwargs), oracle.changed(model, change, (), kwargs))
    gp.save(task, tmp_path / "scale.safetensors")
    assert same(gp.load(tmp_path / "scale.safetensors", graph)(**kwargs), task(**kwargs))
    task(**kwargs).square().sum().backward()
    assert all((p.grad is not None) == n.startswith("program.") for n, p in task.named_parameters())


def test_integers_are_not_scaled() -> None:
    _, graph = captured("transformer")
    with pytest.raises(InterfaceError, match="input:input_ids has dtype"):
        gp.compile(graph, gp.Program([gp.Scale(at="input:input_ids")]))


def test_masks_are_not_scaled() -> None:
    _, graph = captured("transformer")
    with pytest.raises(InterfaceError, match="input:attention_mask has dtype"):
        gp.compile(graph, gp.Program([gp.Scale(at="input:attention_mask")]))


def test_the_vector_takes_the_dtype_of_the_interface() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)).to(torch.bfloat16)
    x = torch.randn(2, 4, dtype=torch.bfloat16)
    graph = gp.capture(model, (x,))
    task = gp.compile(graph, gp.Program([gp.Scale(at="0:out")]))
    assert task.program.scale.value.dtype == torch.float32
    assert same(task(x), graph(x))
