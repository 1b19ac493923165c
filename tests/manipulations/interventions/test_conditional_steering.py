"""Vectors that are added only where a probe fires, against a hook on the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import graphprog as gp
from graphprog.backends.onnxruntime import Session
from graphprog.errors import InterfaceError, ProgramError
from tests.manipulations.interventions.hooked_blocks import LENGTHS, call, hooked, logits
from tests.models.tiny_models import tiny
from tests.models.zoo import CASES, captured
from tests.support import oracle

VECTOR = torch.linspace(-2, 2, 32)
WEIGHT = torch.linspace(-1, 1, 32).cos() * torch.arange(32).remainder(3).sub(1)


def middle(scores: Tensor) -> float:
    """A threshold that half of some scores exceed, and none is near."""
    order = scores.flatten().sort().values
    number = len(order) // 2
    return float((order[number - 1] + order[number]) / 2)


@pytest.mark.parametrize("chosen", [None, "last", "tokens[1:]", (0, -1), "mask:where"])
def test_a_vector_is_added_where_the_probe_fires(chosen: Any) -> None:
    model, graph = captured("gpt2")
    given = call()
    where = torch.zeros(3, 9, dtype=torch.bool)
    for row, length in enumerate(LENGTHS):
        kept: dict[Any, Any] = {
            None: range(9),
            "last": [length - 1],
            "tokens[1:]": range(1, length),
            (0, -1): [0, 8],
            "mask:where": [row, 5],
        }
        where[row, list(kept[chosen])] = True
    bounds = []

    def change(value: Tensor) -> None:
        scores = torch.einsum("bsd,d->bs", value, WEIGHT)
        bounds.append(middle(scores[where]))
        value[where & (scores > bounds[0])] += VECTOR

    expected = hooked(model, given, change)
    part = gp.ConditionalSteering(
        gp.Fixed(VECTOR), gp.Fixed(WEIGHT), -bounds[0], at="hidden[1]", positions=chosen
    )
    task = gp.compile(graph, gp.Program([part]))
    more = {"where": where} if chosen == "mask:where" else {}
    torch.testing.assert_close(logits(task, {**given, **more}), expected, rtol=1e-4, atol=1e-4)
    with task.disabled():
        assert torch.equal(logits(task, given), logits(graph, given))


def test_where_it_does_not_fire_nothing_changes() -> None:
    graph, given = captured("gpt2")[1], call()
    vector, weight = gp.Fixed(VECTOR), gp.Fixed(WEIGHT)
    never = gp.ConditionalSteering(vector, weight, -1e6, at="hidden[1]")
    always = gp.ConditionalSteering(vector, weight, 1e6, at="hidden[1]", units="4:9")
    plain = gp.Additive(at="hidden[1]", value=vector, units="4:9")
    found = [
        logits(gp.compile(graph, gp.Program([part])), given) for part in (never, always, plain)
    ]
    assert torch.equal(found[0], logits(graph, given))
    assert torch.equal(found[1], found[2])


def test_each_place_of_an_image_decides_for_itself() -> None:
    model, graph = captured("residual")
    (x,), _ = CASES["residual"].call(3)
    weight, vector = torch.randn(8, 1, 1), torch.randn(8, 1, 1)

    bounds = []

    def change(value: Tensor) -> Tensor:
        scores = torch.einsum("bchw,c->bhw", value, weight.flatten())
        bounds.append(middle(scores))
        return value + (scores > bounds[0])[:, None] * vector

    expected = oracle.changed(model, {"blocks.1:out": change}, (x,), {})
    part = gp.ConditionalSteering(gp.Fixed(vector), gp.Fixed(weight), -bounds[0], at="hidden[1]")
    found = gp.compile(graph, gp.Program([part]))(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def _parts(learned: Tensor) -> list[gp.Manipulation]:
    """Two at one interface: the second reads what the first made of the value."""
    weight, other = torch.tensor([1.0, -1, 0, 2]), torch.tensor([0.0, 1, 1, -1])
    value = gp.Learnable(gp.initializers.Given(learned), shape=(4,))
    return [
        gp.ConditionalSteering(value, gp.Fixed(weight), at="tokens", positions="tokens[1:]"),
        gp.ConditionalSteering(gp.Fixed(learned), gp.Fixed(other), 0.3, at="tokens", name="second"),
    ]


def _expected(vectors: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """The value at the tokens; row i is changed by vector i, and by the first vector after that."""
    value = tokens.clone()
    for row, column in (mask.cumsum(1) > 1).logical_and(mask > 0).nonzero().tolist():
        h = value[row, column]
        if h[0] - h[1] + 2 * h[3] > 0:
            value[row, column] = h + vectors[row]
    fired = value[..., 1] + value[..., 2] - value[..., 3] + 0.3 > 0
    return value + fired[..., None] * vectors[0]


def test_it_stacks_trains_saves_and_runs_with_a_program_for_each_row(tmp_path: Path) -> None:
    graph = tiny("padded")
    first, second = torch.linspace(-1, 1, 4), torch.tensor([2.0, 0.5, -1, 1])
    program = gp.Program(_parts(first))
    task, other = (gp.compile(graph, program) for _ in range(2))
    (name,) = [name for name, value in task.named_parameters() if value.requires_grad]
    other.load_program_state({name: second})
    ids = torch.randint(0, 10, (3, 7), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(7) < torch.tensor([[2], [7], [5]])).long()
    tokens = gp.record(graph, (ids, mask), at="tokens")["tokens"]
    found = gp.record(task, (ids, mask), at="tokens")["tokens"]
    torch.testing.assert_close(found, _expected(first.expand(3, 4), tokens, mask))
    task(ids, mask).square().sum().backward()
    assert task.get_parameter(name).grad is not None
    paths = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for one, path in zip((task, other), paths, strict=True):
        gp.save(one, path)
        assert path.stat().st_size < 8000
    loaded = gp.load(paths[1], graph)
    assert [part.kind for part in loaded.spec.acting] == ["conditional-steering"] * 2
    assert torch.equal(loaded(ids, mask), other(ids, mask))
    assert gp.backends.onnx.export(task, tmp_path / "rows.onnx", program="per_row").passed
    session = Session(tmp_path / "rows.onnx", "cpu")
    session.add("second", paths[1])
    session.add("first", paths[0])
    rows = ["first", "second", "first"]
    given = {"ids": ids.numpy(), "mask": mask.numpy()}
    expected = task(ids, mask)
    expected[1] = other(ids, mask)[1]
    np.testing.assert_allclose(
        session.run(**given, program=rows), expected.detach().numpy(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("mode", ["folded", "overridable"])
def test_an_exported_file_decides_alike(tmp_path: Path, mode: Any) -> None:
    graph = tiny("padded")
    task = gp.compile(graph, gp.Program(_parts(torch.linspace(-1, 1, 4))))
    assert gp.backends.onnx.export(task, tmp_path / "steered.onnx", program=mode).passed
    session = Session(tmp_path / "steered.onnx", "cpu")
    ids = torch.randint(0, 10, (5, 4), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    found = session.run(ids=ids.numpy(), mask=mask.numpy())
    expected = task(ids, mask).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_a_condition() -> None:
    vector = gp.Fixed(torch.ones(4))
    for make, message in (
        (lambda: gp.ConditionalSteering(torch.ones(4), vector), "value must be Fixed or Learnable"),  # type: ignore[arg-type]
        (lambda: gp.ConditionalSteering(vector, gp.Learnable()), "weight must be Fixed and finite"),  # type: ignore[arg-type]
        (
            lambda: gp.ConditionalSteering(vector, gp.Fixed(torch.full((4,), torch.nan))),
            "weight must be Fixed and finite",
        ),
        (lambda: gp.ConditionalSteering(vector, vector, float("inf")), "bias must be a finite"),
    ):
        with pytest.raises(ProgramError, match=message):
            make()
    graph = tiny("padded")
    for one, weight, at, error, message in (
        (vector, torch.ones(3), "tokens", ProgramError, "weight of the probe of shape .* does not"),
        (vector, torch.ones(1), "tokens", ProgramError, "weight of the probe is one number"),
        (gp.Fixed(torch.ones(3)), torch.ones(4), "tokens", ProgramError, "does not broadcast"),
        (vector, torch.ones(4), "input:ids", InterfaceError, "has dtype"),
    ):
        part = gp.ConditionalSteering(one, gp.Fixed(weight), at=at)
        with pytest.raises(error, match=message):
            gp.compile(graph, gp.Program([part]))
