"""Patching, attribution and steering, against hooks on the model itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.errors import DataError, InterfaceError, ProgramError
from graphprog.instruments.patching import swap
from tests.models.zoo import CASES, captured

RIGHT, WRONG = 7, 11


def score(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, -1, RIGHT] - logits[:, -1, WRONG]


@pytest.fixture(scope="module")
def pair() -> tuple[nn.Module, gp.Graph, dict[str, Any], dict[str, Any]]:
    model, graph = captured("gpt2")
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 90, (1, 6), generator=generator)
    other = ids.clone()
    other[0, 2] = 55
    mask = torch.ones_like(ids)
    clean, corrupt = ({"input_ids": one, "attention_mask": mask} for one in (ids, other))
    return model, graph, clean, corrupt


def blocks(model: Any) -> Any:
    return model.transformer.h


def run_with(model: Any, call: dict[str, Any], changes: dict[int, Any]) -> torch.Tensor:
    """Logits with the output of blocks changed by forward hooks."""

    def hook(change: Any) -> Any:
        return lambda _m, _a, result: (
            (change(result[0]), *result[1:]) if isinstance(result, tuple) else change(result)
        )

    handles = [blocks(model)[i].register_forward_hook(hook(one)) for i, one in changes.items()]
    try:
        found: torch.Tensor = model(**call, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    return found


def states(model: Any, call: dict[str, Any]) -> list[torch.Tensor]:
    kept: dict[int, torch.Tensor] = {}
    changes = {
        i: lambda value, i=i: kept.__setitem__(i, value.clone()) or value
        for i in range(len(blocks(model)))
    }
    run_with(model, call, changes)
    return [kept[i] for i in range(len(kept))]


def test_every_cell_is_the_run_with_one_value_replaced(pair: Any, tmp_path: Path) -> None:
    model, graph, clean, corrupt = pair
    found = gp.patch(graph, clean, corrupt, metric=(RIGHT, WRONG), batch_size=5)
    backwards = gp.patch(graph, clean, corrupt, metric=score, into="clean")
    wide = gp.patch(graph, clean, corrupt, metric=score, window=2, positions="all")
    with torch.no_grad():
        ends = [score(run_with(model, call, {})) for call in (clean, corrupt)]
        given, lost = states(model, clean), states(model, corrupt)
        for i in range(3):
            for position in range(6):

                def put(value: torch.Tensor, source: Any = given[i]) -> torch.Tensor:
                    value = value.clone()
                    value[:, position] = source[:, position]  # noqa: B023
                    return value

                patched = score(run_with(model, corrupt, {i: put}))
                expected = float((patched - ends[1]) / (ends[0] - ends[1]))
                assert float(found.effects[i, position]) == pytest.approx(expected, abs=1e-3)
                destroyed = score(
                    run_with(model, clean, {i: lambda value: put(value, lost[i])})  # noqa: B023
                )
                expected = float((destroyed - ends[0]) / (ends[1] - ends[0]))
                assert float(backwards.effects[i, position]) == pytest.approx(expected, abs=1e-3)
        whole = {i: lambda _value, i=i: given[i] for i in (0, 1)}
        expected = float((score(run_with(model, corrupt, whole)) - ends[1]) / (ends[0] - ends[1]))
        assert float(wide.effects[0, 0]) == pytest.approx(expected, abs=1e-3)
    assert found.clean == pytest.approx(float(ends[0]), abs=1e-5)
    assert found.largest(1)[0][0] in found.names
    found.plot(tmp_path / "map.png", tokens=list("abcdef"))
    assert (tmp_path / "map.png").stat().st_size > 5000
    with pytest.raises(DataError, match="2 tokens are no labels of the 6 positions"):
        found.plot(tokens=["a", "b"])


def test_what_passes_through_an_interface(pair: Any) -> None:
    """With the last hidden state between, nothing is lost; with an earlier one, nothing passes."""
    _, graph, clean, corrupt = pair
    plain = gp.patch(graph, clean, corrupt, at="hidden[0:2]", metric=score)
    through = gp.patch(graph, clean, corrupt, at="hidden[0:2]", metric=score, through="hidden[2]")
    torch.testing.assert_close(through.effects, plain.effects, rtol=1e-4, atol=1e-4)
    none = gp.patch(graph, clean, corrupt, at="hidden[2]", metric=score, through="hidden[0]")
    assert float(none.effects.abs().max()) < 1e-5


def with_heads(
    model: Any, call: dict[str, Any], layer: int, change: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Score with what the last layer of attention reads changed: heads side by side [B, S, E]."""
    handle = blocks(model)[layer].attn.c_proj.register_forward_pre_hook(
        lambda _m, given: (change(given[0]), *given[1:])
    )
    try:
        return score(model(**call, use_cache=False).logits)
    finally:
        handle.remove()


def test_heads_are_cells(pair: Any) -> None:
    """Patching replaces a head, attribution is its derivative, in the same map."""
    model, graph, clean, corrupt = pair
    options: dict[str, Any] = {"at": "attention[*]", "metric": score, "heads": "each"}
    patched = gp.patch(graph, clean, corrupt, **options)
    estimated = gp.attribute(graph, clean, corrupt, **options)
    steps = 3
    integrated = gp.attribute(graph, clean, corrupt, **options, how="integrated", steps=steps)
    heads = int(graph.interfaces().resolve("attention[0]").shape[1])
    assert patched.effects.shape == (3, 6, heads)
    ends = [float(with_heads(model, call, 0, lambda value: value)) for call in (clean, corrupt)]
    for layer in range(3):
        kept: list[torch.Tensor] = []
        for call in (clean, corrupt):
            with_heads(model, call, layer, lambda value: kept.append(value.detach()) or value)  # noqa: B023
        gap, width = kept[0] - kept[1], kept[0].shape[-1] // heads

        def slope(share: float) -> torch.Tensor:
            shift = (share * gap).requires_grad_()  # noqa: B023
            total = with_heads(model, corrupt, layer, lambda value: value + shift)  # noqa: B023
            return torch.autograd.grad(total.sum(), shift)[0]

        mean = torch.stack([slope((step + 0.5) / steps) for step in range(steps)]).mean(0)
        for found, gradient in ((estimated, slope(0.0)), (integrated, mean)):
            expected = (gradient * gap)[0].unflatten(1, (heads, width)).sum(2)
            expected = expected / (ends[0] - ends[1])
            torch.testing.assert_close(found.effects[layer], expected, rtol=1e-3, atol=1e-4)
        for position, head in ((2, 0), (5, heads - 1), (3, 1)):

            def put(value: torch.Tensor) -> torch.Tensor:
                value, own = value.clone(), slice(head * width, (head + 1) * width)  # noqa: B023
                value[:, position, own] = kept[0][:, position, own]  # noqa: B023
                return value

            effect = (float(with_heads(model, corrupt, layer, put)) - ends[1]) / (ends[0] - ends[1])
            assert float(patched.effects[layer, position, head]) == pytest.approx(effect, abs=1e-3)
    name, position, head, effect = patched.largest(1)[0]
    index = patched.names.index(name), position, head
    assert float(patched.effects[index]) == effect
    assert abs(effect) == float(patched.effects.abs().max())
    assert patched.agreement(estimated, 10).cells == 10


def test_single_cells(pair: Any, tmp_path: Path) -> None:
    _, graph, clean, corrupt = pair
    options: dict[str, Any] = {"at": ["hidden[1]", "hidden[0]"], "metric": score}
    for run in (gp.patch, gp.attribute):
        whole = run(graph, clean, corrupt, **options)
        some = run(graph, clean, corrupt, **options, positions=(-1, 2))
        torch.testing.assert_close(some.effects, whole.effects[:, [5, 2]], rtol=1e-3, atol=1e-3)
        assert some.positions == (5, 2)
        assert {position for _, position, _ in some.largest(4)} == {2, 5}
        one = run(graph, clean, corrupt, **{**options, "at": "hidden[1]"}, positions=2)
        torch.testing.assert_close(one.effects, whole.effects[:1, 2:3], rtol=1e-3, atol=1e-3)
        together = run(graph, clean, corrupt, **options, positions="all")
        assert together.effects.shape == (2, 1)
    torch.testing.assert_close(together.effects[:, 0], whole.effects.sum(1), rtol=1e-3, atol=1e-4)
    drawing = some.plot(tmp_path / "some.png", tokens=list("abcdef"))
    assert [label.get_text() for label in drawing.axes[0].get_xticklabels()] == ["f", "c"]
    with pytest.raises(DataError, match="other cells"):
        whole.agreement(dataclasses.replace(some, effects=whole.effects))


def test_a_path_between_two_interfaces(pair: Any) -> None:
    """What a clean value does through the feed-forward layer of a later block alone."""
    model, graph, clean, corrupt = pair
    through = "transformer.h.1.mlp:out"
    found = gp.patch(
        graph, clean, corrupt, at="hidden[0]", metric=score, positions="all", through=through
    )
    given = states(model, clean)[0]
    kept: list[torch.Tensor] = []
    layer = blocks(model)[1].mlp
    with torch.no_grad():
        handle = layer.register_forward_hook(lambda _m, _a, value: kept.append(value.clone()))
        run_with(model, corrupt, {0: lambda _value: given})
        handle.remove()
        handle = layer.register_forward_hook(lambda _m, _a, _value: kept[0])
        patched = score(run_with(model, corrupt, {}))
        handle.remove()
        ends = [score(run_with(model, call, {})) for call in (clean, corrupt)]
    expected = float((patched - ends[1]) / (ends[0] - ends[1]))
    assert float(found.effects[0, 0]) == pytest.approx(expected, abs=1e-3)
    assert abs(expected) > 1e-2


def test_attribution_is_the_derivative_of_patching(pair: Any) -> None:
    model, graph, clean, corrupt = pair
    found = gp.attribute(graph, clean, corrupt, metric=score)
    given, lost = states(model, clean), states(model, corrupt)
    with torch.no_grad():
        ends = [score(run_with(model, call, {})) for call in (clean, corrupt)]
    for i in range(3):
        shift = torch.zeros_like(lost[i], requires_grad=True)
        total = score(run_with(model, corrupt, {i: lambda value: value + shift})).sum()  # noqa: B023
        slope = torch.autograd.grad(total, shift)[0]
        expected = (slope * (given[i] - lost[i])).sum(-1)[0] / (ends[0] - ends[1])
        torch.testing.assert_close(found.effects[i], expected.float(), rtol=1e-3, atol=1e-4)
    last = gp.attribute(graph, clean, corrupt, at="hidden[2]", metric=score)
    patched = gp.patch(graph, clean, corrupt, at="hidden[2]", metric=score)
    assert last.largest(1)[0][1] == patched.largest(1)[0][1]


def test_integrated_gradients_sum_to_the_effect_of_all_positions(pair: Any) -> None:
    _, graph, clean, corrupt = pair
    found = gp.attribute(graph, clean, corrupt, metric=score, how="integrated", steps=64)
    whole = gp.patch(graph, clean, corrupt, metric=score, positions="all")
    torch.testing.assert_close(found.effects.sum(1), whole.effects[:, 0], rtol=1e-2, atol=1e-2)


def test_grad_cam_is_that_of_hooks() -> None:
    model, graph = captured("torchvision-resnet18")
    images = CASES["torchvision-resnet18"].call(2)[0][0]
    found = gp.instruments.grad_cam(graph, images, "hidden[-1]", target=3)
    key = graph.interfaces().resolve("hidden[-1]").key.removesuffix(":out")
    kept: dict[str, torch.Tensor] = {}
    handle = model.get_submodule(key).register_forward_hook(
        lambda _m, _a, result: kept.setdefault("value", result.detach().requires_grad_())
    )
    logits = model(images)
    handle.remove()
    value = kept["value"]
    slope = torch.autograd.grad(logits[:, 3].sum(), value)[0]
    expected = (slope.mean((2, 3), keepdim=True) * value).sum(1).relu().detach()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(DataError, match="not one of"):
        gp.instruments.grad_cam(graph, images, "hidden[-1]", target=10_000)


@pytest.mark.parametrize("how", ["mean", "pca", "probe"])
def test_a_direction_separates_and_steers(how: Any, tmp_path: Path) -> None:
    model, graph = captured("gpt2")
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(1, 90, (16, 6), generator=generator)
    positive, negative = ids.clone(), ids.clone()
    positive[:, -1], negative[:, -1] = 20, 30
    mask = torch.ones_like(ids)
    found = gp.contrast(graph, (positive, mask), (negative, mask), how=how)
    assert found.best.separation == 1.0
    call = {"input_ids": negative, "attention_mask": mask}
    with torch.no_grad():
        last = {
            name: states(model, {**call, "input_ids": one})[0][:, -1]
            for name, one in (("positive", positive), ("negative", negative))
        }
    vector = found.rows[0].vector
    gap = (last["positive"] - last["negative"]).mean(0)
    assert float(torch.cosine_similarity(vector, gap, dim=0)) > (0.99 if how != "probe" else 0.2)
    task = gp.compile(graph, found.program("hidden[0]", strength=2.0))
    with torch.no_grad():
        expected = run_with(model, call, {0: lambda value: value + 2.0 * vector})
        steered = task(**call, use_cache=False)
        steered = steered["logits"] if isinstance(steered, dict) else steered.logits
    torch.testing.assert_close(steered, expected, rtol=1e-4, atol=1e-5)
    gp.save(task, tmp_path / "steering.safetensors")
    assert (tmp_path / "steering.safetensors").stat().st_size < 16_000
    found.plot(tmp_path / "separation.png")


def test_what_cannot_be_patched(pair: Any) -> None:
    _, graph, clean, corrupt = pair
    longer = {name: value[:, [0, 1, 2, 3, 4, 5, 5]] for name, value in clean.items()}
    double = {name: value.repeat(2, 1) for name, value in clean.items()}
    for one, other, options, error, message in (
        (clean, longer, {}, DataError, "differ in shape"),
        (double, double, {}, DataError, "one is needed"),
        (clean, clean, {}, DataError, "in both runs"),
        (clean, corrupt, {"metric": (1, 2, 3)}, ProgramError, "two classes"),
        (clean, corrupt, {"metric": lambda logits: logits}, DataError, "one number for each row"),
        (clean, corrupt, {"into": "both"}, ProgramError, "into must be"),
        (clean, corrupt, {"window": 0}, ProgramError, "window must be"),
        (clean, corrupt, {"positions": "none"}, ProgramError, "positions must be"),
        (clean, corrupt, {"positions": 6}, DataError, "6 positions, and no position"),
    ):
        with pytest.raises(error, match=message):
            gp.patch(graph, one, other, **{"metric": score, **options})
    for options in ({"heads": "none"}, {"how": "none"}):
        with pytest.raises(ProgramError, match="must be"):
            gp.attribute(graph, clean, corrupt, metric=score, **options)
    with pytest.raises(DataError, match=r"6 positions, and no position \[-7\]"):
        gp.attribute(graph, clean, corrupt, metric=score, positions=-7)
    for one, other, message in (
        (clean, longer, r"clean and corrupt inputs differ in shape: \[1, 6\], \[1, 7\]"),
        (double, double, "clean inputs have .2. rows; one is needed"),
    ):
        with pytest.raises(DataError, match=message):
            gp.attribute(graph, one, other, metric=score)


def test_a_second_map_builds_nothing(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, graph, clean, corrupt = pair
    maps = [gp.patch(graph, clean, corrupt, metric=score)]
    gp.attribute(graph, clean, corrupt, metric=score)
    monkeypatch.setattr(swap, "executable", None)
    gp.attribute(graph, clean, corrupt, metric=score)
    maps.append(gp.patch(graph, clean, corrupt, metric=score))
    assert torch.equal(maps[0].effects, maps[1].effects)


def test_only_cells_that_differ_run_and_only_what_comes_after_them(
    pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, graph, clean, corrupt = pair
    whole = gp.patch(graph, clean, corrupt, metric=score, batch_size=64)
    ran = []
    onward = swap.Swapped.onward

    def watched(self: Any, flat: Any, swaps: Any, others: Any) -> Any:
        found = onward(self, flat, swaps, others)
        first = next(name for name in self._order if name in swaps)
        ran.append((len(flat[0]), first, len(self._parts[first].graph.nodes)))
        return found

    monkeypatch.setattr(swap.Swapped, "onward", watched)
    found = gp.patch(graph, clean, corrupt, metric=score, batch_size=4)
    assert not found.effects[:, :2].any()  # the inputs differ from position 2 on
    assert found.effects[:2, 2].all()  # the last block of a position is read at it alone
    torch.testing.assert_close(found.effects, whole.effects, rtol=1e-3, atol=1e-3)
    assert [row[:2] for row in ran] == [(4, f"hidden[{i}]") for i in range(3)]
    assert ran[0][2] > ran[1][2] > ran[2][2]


def test_agreement_is_that_of_the_largest_cells() -> None:
    def of(*effects: float) -> gp.instruments.EffectMap:
        names = ("hidden[0]", "hidden[1]")
        return gp.instruments.EffectMap(names, torch.tensor(effects).reshape(2, 3), 2.0, 1.0)

    measured = of(0.9, -0.8, 0.7, 0.0, 0.1, 0.0)
    same = measured.agreement(measured)
    assert (same.cells, same.overlap, same.error) == (4, 1.0, 0.0)
    assert same.rank_correlation == pytest.approx(1)
    other = measured.agreement(of(0.5, -0.9, 0.6, 0.7, 0.0, 0.0), largest=3)
    assert other.cells == 3
    assert other.overlap == pytest.approx(2 / 3)  # the largest of the other: cells 1, 3 and 2
    assert other.rank_correlation == pytest.approx(0.5)  # ranks 3 1 2 beside 2 1 3
    assert other.error == pytest.approx(0.2)
    with pytest.raises(DataError, match="other cells"):
        measured.agreement(dataclasses.replace(measured, names=("a", "b")))
    with pytest.raises(DataError, match="no cell of the map has an effect"):
        of(*[0.0] * 6).agreement(measured)


def test_a_passage_that_is_patched_itself_by_another_name(pair: Any) -> None:
    _, graph, clean, corrupt = pair
    key = graph.interfaces().resolve("hidden[1]").key
    found = [
        gp.patch(graph, clean, corrupt, metric=score, through=name).effects
        for name in ("hidden[1]", key)
    ]
    assert torch.equal(*found)
    assert float(found[0][1].abs().max()) > 1e-3


def test_an_interface_behind_the_alignment() -> None:
    graph, (images,) = captured("residual")[1], CASES["residual"].call(2)[0]
    head = gp.LinearHead(3, at="hidden[0]", pool="mean")
    task = gp.compile(graph, gp.Program(align=head))
    two = {"clean": images[:1], "corrupt": images[1:], "at": ["stem:out", "hidden[2]"]}
    message = r"no output depends on hidden\[.\]: the program's alignment"
    for run in (gp.patch, gp.attribute):
        with pytest.raises(InterfaceError, match=message):
            run(task, **two, metric=(0, 1))
    with pytest.raises(InterfaceError, match=message):
        gp.instruments.grad_cam(task, images, "hidden[2]")
    with pytest.raises(InterfaceError, match=message):  # nothing passes through it
        gp.patch(task, **{**two, "at": "stem:out"}, metric=(0, 1), through="hidden[1]")
    reads = {**two, "at": ["stem:out", "hidden[0]"]}  # the head reads the value itself
    whole = gp.patch(task, **reads, metric=(0, 1))
    assert whole.effects.flatten().tolist() == pytest.approx([1, 1], abs=1e-4)
    estimated = gp.attribute(task, **reads, metric=(0, 1))
    assert float(estimated.effects[1]) == pytest.approx(1, abs=1e-4)  # it is linear from there on
