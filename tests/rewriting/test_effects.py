"""What lies behind an alignment is refused; what an alignment reads belongs to its interface."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import graphprog as gp
from graphprog.errors import InterfaceError
from tests.models.tiny_models import tiny
from tests.models.zoo import CASES, captured
from tests.support import oracle

HEAD = gp.LinearHead(3, at="hidden[1]", pool="mean")
ONE = gp.Fixed(torch.ones(1))


@pytest.fixture(scope="module")
def task() -> gp.ReprogrammedModel:
    return gp.compile(captured("residual")[1], gp.Program(align=HEAD))


def images(count: int = 2) -> Tensor:
    found: Tensor = CASES["residual"].call(count)[0][0]
    return found


@pytest.mark.parametrize(
    ("at", "named"),
    [
        ("hidden[2]", r"hidden\[2\]"),
        ("features", "features"),
        ("logits", "logits"),
        ("hidden[*]", r"hidden\[2\]"),
        ("blocks.2.conv:in", "blocks.2.conv:in"),
    ],
)
def test_a_change_behind_the_alignment(at: str, named: str) -> None:
    donor = "other_*" if "*" in at else "other"
    for part in (gp.Additive(at=at, value=ONE), gp.Swap(at=at, donor=donor)):
        message = rf"no output depends on {named}: .* alignment reads hidden\[1\], which comes"
        with pytest.raises(InterfaceError, match=message) as caught:
            gp.compile(captured("residual")[1], gp.Program([part], align=HEAD))
        assert "name interfaces up to hidden[1]" in str(caught.value)


def test_inserted_tokens_behind_the_alignment() -> None:
    graph = captured("vit")[1]
    head = gp.LinearHead(2, at="hidden[0]", pool="mean")
    prompt = gp.Concatenative(at="hidden[1]", length=2)
    with pytest.raises(InterfaceError, match=r"no output depends on hidden\[1\]"):
        gp.compile(graph, gp.Program([prompt], align=head))


def test_a_value_that_a_later_change_replaces() -> None:
    swapped = gp.compile(captured("residual")[1], gp.Program([gp.Swap(at="hidden[1]")]))
    with pytest.raises(InterfaceError, match=r"depends on hidden\[0\]: .* change after it"):
        gp.patch(swapped, images(), images(), at="hidden[0]", metric=(0, 1))


def test_reading_and_steering_behind_the_alignment(
    task: gp.ReprogrammedModel, tmp_path: Path
) -> None:
    graph, x = captured("residual")[1], images()
    reading = r"does not compute hidden\[2\]: its alignment reads hidden\[1\], which does not"
    reads: tuple[Callable[[], Any], ...] = (
        lambda: gp.record(task, x, at="hidden[*]"),
        lambda: gp.record(task, (x,), at="hidden[2]", to=tmp_path / "recording"),
        lambda: gp.contrast(task, x, x.flip(0), at="hidden[2]", positions=None),
        lambda: gp.instruments.ablation(task, x, "hidden[2]"),
        lambda: gp.compare(graph, task, x),
        lambda: gp.compare(task, graph, x),
        lambda: gp.backends.onnx.export(task, tmp_path / "a.onnx", outputs=["logits", "hidden[2]"]),
    )
    for read in reads:
        with pytest.raises(InterfaceError, match=reading) as caught:
            read()
        assert "task.base" in str(caught.value)
    assert not (tmp_path / "recording").exists()
    assert [*gp.record(task.base, x, at="hidden[2]")] == ["hidden[2]"]
    with pytest.raises(InterfaceError, match=r"no output depends on head:in"):
        gp.backends.onnx.export(task, tmp_path / "a.onnx", steer=["head:in"])


def test_what_the_alignment_reads_is_read(task: gp.ReprogrammedModel) -> None:
    x = images()
    found, whole = (gp.record(one, x, at="hidden[1]")["hidden[1]"] for one in (task, task.base))
    assert torch.equal(found, whole)
    mapped = gp.compile(task.base, gp.Program(align=gp.FixedMap(classes=2)))
    places = ["head:out", "features", "logits"]  # what stands in for the old head reads features
    assert gp.record(mapped, x, at=places)["head:out"].shape == (2, 20)


def test_a_patch_acts_where_a_change_acts(task: gp.ReprogrammedModel) -> None:
    """On the read of the alignment, too; after it, neither does."""
    graph, pair = task.base, images()
    acting = {}
    for key in graph.sites:
        try:
            gp.compile(graph, gp.Program([gp.Additive(at=key, value=ONE)], align=HEAD))
            acting[key] = True
        except InterfaceError:
            acting[key] = False
        if key not in task.graph.sites or key.startswith("output:"):  # the new logits
            continue
        try:
            found = gp.patch(task, pair[:1], pair[1:], at=key, metric=(0, 1)).effects
            assert acting[key]
            assert found.any(), key
        except InterfaceError:
            assert not acting[key], key
    assert acting["blocks.1:out"]
    assert acting["blocks.1.relu:out"]
    assert not acting["blocks.2:in"]
    whole = gp.patch(task, pair[:1], pair[1:], at="hidden[0:2]", metric=(0, 1))
    assert whole.effects.flatten().tolist() == pytest.approx([1, 1], abs=1e-4)


def test_a_vector_at_the_read_of_the_alignment_steers(tmp_path: Path) -> None:
    graph = tiny("padded")
    task = gp.compile(graph, gp.Program(align=gp.LinearHead(2, at="tokens", pool="mean")))
    gp.backends.onnx.export(task, tmp_path / "steered.onnx", steer={"tokens": torch.ones(4)})
    session = gp.backends.onnxruntime.Session(tmp_path / "steered.onnx", "cpu")
    given = {"ids": torch.arange(6).reshape(2, 3).numpy(), "mask": torch.ones(2, 3).long().numpy()}
    gap = session.run(**given, strength=3.0) - session.run(**given, strength=0.0)
    weight = task.program_state()["program.align.weight"]
    torch.testing.assert_close(torch.from_numpy(gap), 3 * weight.sum(1).expand(2, -1))


def test_a_changed_read_is_that_of_hooks(task: gp.ReprogrammedModel) -> None:
    model, x = captured("residual")[0], images()
    state = task.program_state()

    def read(value: Tensor) -> Tensor:
        return value.mean((2, 3)) @ state["program.align.weight"].T + state["program.align.bias"]

    kept: list[Tensor] = []
    oracle.changed(model, {"blocks.1:out": lambda v: kept.append(v) or v}, (x,), {})
    logits = read(kept[0])
    half = kept[0][1:].clone()
    half[:, :4] = kept[0][:1, :4]
    shift = gp.Swap(at="hidden[1]", donor="other", units=":4")
    swapped = gp.compile(task.base, gp.Program([shift], align=HEAD))
    swapped.load_program_state(state)
    torch.testing.assert_close(swapped(x[1:], kept[0][:1]), read(half))
    torch.testing.assert_close(task(x), logits)
