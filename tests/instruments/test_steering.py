"""Strength and condition of steering, against hooks on the model itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import graphprog as gp
from graphprog.errors import DataError, ProgramError
from tests.manipulations.interventions.hooked_blocks import hooked, logits
from tests.models.zoo import CASES, captured

GOOD, BAD = 20, 30
LENGTH = 6


def texts(last: int, rows: int = 16) -> dict[str, Tensor]:
    """Texts that end in a token, some of them shorter than others."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(1, 90, (rows, LENGTH), generator=generator)
    lengths = torch.arange(rows) % 3 + LENGTH - 2
    ids[range(rows), lengths - 1] = last
    mask = (torch.arange(LENGTH) < lengths[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture(scope="module")
def contrast() -> gp.instruments.Contrast:
    return gp.contrast(captured("gpt2")[1], texts(GOOD), texts(BAD))


def held_out(call: dict[str, Tensor]) -> dict[str, Tensor]:
    """The rows that a contrast of 16 holds out: a quarter, by a seeded permutation."""
    rows = torch.randperm(16, generator=torch.Generator().manual_seed(0))[:4]
    return {name: value[rows] for name, value in call.items()}


def adding(vector: Tensor) -> Callable[[Tensor], None]:
    def change(value: Tensor) -> None:
        value += vector

    return change


def next_token_loss(found: Tensor, call: dict[str, Tensor]) -> float:
    losses = []
    for row, ids in enumerate(call["input_ids"]):
        for position in range(int(call["attention_mask"][row].sum()) - 1):
            losses.append(functional.cross_entropy(found[row, position], ids[position + 1]))
    return float(torch.stack(losses).mean())


def last_value(model: Any, call: dict[str, Tensor], change: Callable[[Tensor], None]) -> Tensor:
    """Output of the last block, at the last token that is there."""
    kept: list[Tensor] = []

    def keep(_module: Any, _given: Any, result: Any) -> None:
        kept.append(result[0] if isinstance(result, tuple) else result)

    handle = model.transformer.h[2].register_forward_hook(keep)
    hooked(model, call, change)
    handle.remove()
    return kept[0][range(len(kept[0])), call["attention_mask"].sum(1) - 1]


def test_score_and_loss_of_every_strength_are_those_of_hooks(contrast: Any) -> None:
    """The score: what the last direction says; the loss: that of the next tokens."""
    model, graph = captured("gpt2")
    strengths = (0.5, 2.0, 6.0)
    search = contrast.search(graph, "hidden[1]", strengths=strengths, tolerance=0.05)
    assert [row.strength for row in search.rows] == [0.0, *strengths]
    call = held_out(texts(BAD))
    vector = contrast.vectors("hidden[1]")["hidden[1]"]
    weight, bias = contrast.boundary("hidden[2]")
    losses = []
    for row in search.rows:
        change = adding(row.strength * vector)
        positive = last_value(model, call, change) @ weight + bias > 0
        assert row.score == float(positive.double().mean())
        losses.append(next_token_loss(hooked(model, call, change), call))
        assert row.loss == pytest.approx(losses[-1], abs=1e-4)
        assert row.allowed == (losses[-1] <= losses[0] + 0.05)
    assert search.rows[0].score == 0
    assert max(row.score for row in search.rows) == 1
    allowed = [row for row in search.rows if row.allowed]
    assert search.best.score == max(row.score for row in allowed)
    assert "best" in str(search)
    back = contrast.search(graph, "hidden[2]", strengths=(-3.0,), tolerance=99.0)
    call = held_out(texts(GOOD))
    vector = contrast.vectors("hidden[2]")["hidden[2]"]
    assert [row.score for row in back.rows] == [0.0, 1.0]
    assert back.rows[0].loss == pytest.approx(next_token_loss(logits(graph, call), call), abs=1e-4)


def test_a_metric_or_a_score_of_the_user_chooses(contrast: Any) -> None:
    model, graph = captured("gpt2")
    call = texts(BAD, rows=5)
    vector = contrast.vectors("hidden[0]")["hidden[0]"]
    options = {"validation": call, "strengths": (-1.0, 1.0, 4.0), "tolerance": 99.0}
    search = contrast.search(graph, "hidden[0]", metric=(GOOD, BAD), **options)

    def expected(strength: float) -> float:
        kept: list[Tensor] = []
        handle = model.transformer.h[0].register_forward_hook(
            lambda _m, _a, result: (
                (result[0] + strength * vector, *result[1:])
                if isinstance(result, tuple)
                else result + strength * vector
            )
        )
        kept.append(hooked(model, call, lambda value: None))
        handle.remove()
        last = kept[0][range(5), call["attention_mask"].sum(1) - 1]
        return float((last[:, GOOD] - last[:, BAD]).mean())

    for row in search.rows:
        assert row.score == pytest.approx(expected(row.strength), abs=1e-4)
    assert search.best.score == max(row.score for row in search.rows)
    asked = []

    def score(task: gp.ReprogrammedModel) -> float:
        value = task.program_state()["program.additive.value"]
        asked.append(float(value.norm() / vector.norm()))
        return -((asked[-1] - 1) ** 2)

    chosen = contrast.search(graph, "hidden[0]", score=score, **options)
    assert asked == pytest.approx([0, 1, 1, 4])
    assert chosen.strength == -1.0  # of equal ones the first


def test_a_compiled_model_is_steered_with_its_program(contrast: Any) -> None:
    model, graph = captured("gpt2")
    own = gp.Additive(at="hidden[0]", value=gp.Learnable("normal", shape=(32,)))
    task = gp.compile(graph, gp.Program([own]), seed=3)
    added = torch.linspace(-1, 1, 32)
    task.load_program_state({"program.additive.value": added})
    call = texts(BAD, rows=5)
    search = contrast.search(
        task, "hidden[1]", strengths=(2.0,), metric=(GOOD, BAD), validation=call, tolerance=99.0
    )
    for row in search.rows:
        vector = row.strength * contrast.vectors("hidden[1]")["hidden[1]"]
        handle = model.transformer.h[0].register_forward_hook(
            lambda _m, _a, result: (
                (result[0] + added, *result[1:]) if isinstance(result, tuple) else result + added
            )
        )
        found = hooked(model, call, adding(vector))
        handle.remove()
        last = found[range(5), call["attention_mask"].sum(1) - 1]
        expected = float((last[:, GOOD] - last[:, BAD]).mean())
        assert row.score == pytest.approx(expected, abs=1e-4)
    assert torch.equal(task.program_state()["program.additive.value"], added)


def test_heads_have_directions_of_their_own() -> None:
    """The mean over positions leaves heads and features; the last token is not averaged."""
    graph = captured("gpt2")[1]
    calls = [texts(GOOD), texts(BAD)]
    rows = torch.randperm(16, generator=torch.Generator().manual_seed(0))[4:]
    values = [gp.record(graph, call, at="attention[1]")["attention[1]"] for call in calls]
    lengths = [call["attention_mask"].sum(1) for call in calls]
    lasts = [
        value[range(16), :, count - 1][rows] for value, count in zip(values, lengths, strict=True)
    ]
    gap = (lasts[0].mean(0) - lasts[1].mean(0))[:, None]
    found = gp.contrast(graph, *calls, at="attention[1]")
    torch.testing.assert_close(found.rows[0].vector, gap, rtol=1e-4, atol=1e-6)
    after = gp.record(gp.compile(graph, found.program()), calls[0], at="attention[1]")
    torch.testing.assert_close(
        after["attention[1]"], values[0] + found.rows[0].vector, rtol=1e-4, atol=1e-5
    )
    single = gp.record(graph, calls[0], at="attention[1]", positions=2, reduce="mean")
    assert torch.equal(single["attention[1]"], values[0][:, :, 2])


def test_no_strength_that_costs_too_much(contrast: Any) -> None:
    graph = captured("gpt2")[1]
    search = contrast.search(graph, "hidden[1]", strengths=(500.0,), tolerance=0.0)
    assert not search.rows[1].allowed
    assert "loss too large" in str(search)
    with pytest.raises(ProgramError, match="no strength improves the score"):
        search.strength  # noqa: B018
    flat = contrast.search(graph, "hidden[1]", strengths=(1.0, 2.0), score=lambda _task: 1.0)
    assert flat.best.strength == 0.0


def test_a_direction_acts_where_it_or_a_probe_fires(contrast: Any, tmp_path: Path) -> None:
    model, graph = captured("gpt2")
    call = texts(BAD, rows=5)
    name = "hidden[1]"
    vector = contrast.vectors(name)[name]
    pairs = zip(texts(GOOD).values(), texts(BAD).values(), strict=True)
    data = (*map(torch.cat, pairs), torch.arange(32) // 16)
    found = gp.record(graph, data, at=name, positions="last", to=tmp_path / "recording")
    probes = gp.probe(found, folds=2, at=name)
    boundaries = []
    for when in (contrast, probes):
        program = contrast.program(name, -2.0, positions="tokens", when=when)
        weight, bias = when.boundary(name)
        boundaries.append((weight, bias))

        def change(value: Tensor) -> None:
            fired = call["attention_mask"].bool() & (value @ weight + bias > 0)  # noqa: B023
            value[fired] -= 2.0 * vector

        expected = hooked(model, call, change)
        task = gp.compile(graph, program)
        torch.testing.assert_close(logits(task, call), expected, rtol=1e-4, atol=1e-4)
        searched = contrast.search(
            graph, name, strengths=(-2.0,), tolerance=99.0, positions="tokens", when=when
        )
        assert searched.rows[1].score >= searched.rows[0].score
    values, row = found[name].tensor(), probes.rows[0]
    says = (values @ row.weight.T + row.bias).argmax(1) == 1
    weight, bias = boundaries[1]
    assert torch.equal(values @ weight + bias > 0, says)
    learned = gp.compile(graph, contrast.program(name, learnable=True, when=probes))
    assert [n for n, p in learned.named_parameters() if p.requires_grad] == [
        "program.conditional_steering.value"
    ]


def test_tokens_are_averaged_by_row(contrast: Any) -> None:
    """Tokens of one text never lie on both sides of the split."""
    model, graph = captured("gpt2")
    calls = [texts(GOOD), texts(BAD)]
    found = gp.contrast(graph, *calls, at="hidden[1]", positions="tokens", held_out=0.25)
    kept = torch.randperm(16, generator=torch.Generator().manual_seed(0))[4:]
    means = []
    for call in calls:
        values: list[Tensor] = []
        hooked(model, call, lambda value: values.append(value.clone()))  # noqa: B023
        rows = [values[0][row][call["attention_mask"][row].bool()].mean(0) for row in kept]
        means.append(torch.stack(rows).mean(0))
    torch.testing.assert_close(found.rows[0].vector, means[0] - means[1], rtol=1e-3, atol=1e-5)


def test_images_are_steered_by_channel() -> None:
    _, graph = captured("residual")
    (x,), _ = CASES["residual"].call(8)
    other = x.flip(0) * 2 + 1
    found = gp.contrast(graph, other, x, at=["hidden[0]", "hidden[1]"], positions=None)
    assert found.rows[1].vector.shape == (8, 1, 1)
    task = gp.compile(graph, found.program("hidden[1]", 2.0))
    before, after = (gp.record(run, x, at="hidden[1]")["hidden[1]"] for run in (graph, task))
    torch.testing.assert_close(after, before + 2.0 * found.rows[1].vector)
    search = found.search(graph, "hidden[1]", strengths=(1.0,))
    assert [row.loss for row in search.rows] == [None, None]  # it predicts no tokens
    assert search.rows[1].allowed


def test_what_cannot_be_searched(contrast: Any) -> None:
    graph = captured("gpt2")[1]
    bare = gp.instruments.Contrast(contrast.rows)
    for source, options, error, message in (
        (contrast, {"strengths": ()}, ProgramError, "strengths must be"),
        (contrast, {"strengths": (0.0, 1.0)}, ProgramError, "strengths must be"),
        (contrast, {"strengths": (1.0, float("nan"))}, ProgramError, "strengths"),
        (contrast, {"strengths": (-1.0, 1.0)}, ProgramError, "of both signs"),
        (contrast, {"tolerance": -1.0}, ProgramError, "tolerance must be"),
        (contrast, {"metric": (1, 2), "score": len}, ProgramError, "exclude one another"),
        (contrast, {"at": "hidden[9]"}, ProgramError, "no direction at"),
        (contrast, {"score": lambda _task: float("nan")}, DataError, "it must be finite"),
        (contrast, {"when": bare, "at": "logits"}, ProgramError, "no direction at logits"),
        (bare, {}, ProgramError, "pass validation="),
    ):
        with pytest.raises(error, match=message):
            source.search(graph, **options)
    images = captured("residual")[1]
    with pytest.raises(DataError, match="no axis of positions"):
        gp.contrast(images, *(CASES["residual"].call(4)[0] for _ in range(2)), at="hidden[0]")
