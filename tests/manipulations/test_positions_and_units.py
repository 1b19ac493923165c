"""Manipulations of some positions and units, against indexing in hooks on the model itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.errors import DataError, InterfaceError, ProgramError
from tests.manipulations.interventions.hooked_blocks import LENGTHS, call, hooked, logits
from tests.models.tiny_models import tiny
from tests.models.zoo import CASES, captured


def tokens(value: Tensor) -> Any:
    return call(value.shape[1])["attention_mask"].bool()


CHOSEN: dict[str, tuple[Any, Callable[[Tensor], Any]]] = {
    "index": (2, lambda value: (slice(None), [2])),
    "indices": ((0, 1, -1), lambda value: (slice(None), [0, 1, value.shape[1] - 1])),
    "range": ("1:-2", lambda value: (slice(None), slice(1, -2))),
    "open range": ("-3:", lambda value: (slice(None), slice(-3, None))),
    "last": ("last", lambda value: (range(3), [min(n, value.shape[1]) - 1 for n in LENGTHS])),
    "tokens": ("tokens", tokens),
    "input": ("attention_mask", tokens),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_only_these_positions_change(name: str) -> None:
    model, graph = captured("gpt2")
    chosen, where = CHOSEN[name]
    vector = torch.linspace(-3, 3, 32)
    part = gp.Additive(at="hidden[1]", value=gp.Fixed(vector), positions=chosen)
    task = gp.compile(graph, gp.Program([part]))
    for length in (9, 5):
        given = call(length)

        def change(value: Tensor) -> None:
            value[where(value)] += vector

        expected = hooked(model, given, change)
        torch.testing.assert_close(logits(task, given), expected, rtol=1e-4, atol=1e-4)
        with task.disabled():
            assert torch.equal(logits(task, given), logits(graph, given))


class Zero(nn.Module):
    """Nothing is left of a value."""

    def forward(self, value: Tensor) -> Tensor:
        return 0 * value


def test_units_and_positions_together(tmp_path: Path) -> None:
    model, graph = captured("gpt2")
    shift = gp.Additive(
        at="hidden[1]", value=gp.Learnable(), units=(0, 5, -1), positions="last", name="shift"
    )
    task = gp.compile(graph, gp.Program([shift]))
    (value,) = [one for one in task.parameters() if one.requires_grad]
    nn.init.normal_(value.data, generator=torch.Generator().manual_seed(0))
    given = call()

    def change(hidden: Tensor) -> None:
        for row, length in enumerate(LENGTHS):
            for unit in (0, 5, 31):
                hidden[row, length - 1, unit] += value.detach().flatten()[unit]

    expected = hooked(model, given, change)
    torch.testing.assert_close(logits(task, given), expected, rtol=1e-4, atol=1e-4)
    task(**given, use_cache=False)["logits"].square().sum().backward()
    assert value.grad is not None
    assert value.grad.flatten().nonzero().flatten().tolist() == [0, 5, 31]
    gp.save(task, tmp_path / "shift.safetensors")
    loaded = gp.load(tmp_path / "shift.safetensors", graph)
    assert loaded.spec == task.spec
    assert torch.equal(logits(loaded, given), logits(task, given))


def test_a_file_changes_them_too(tmp_path: Path) -> None:
    """At a length and with masks that the export did not see."""
    shift = gp.Fixed(torch.linspace(1, 2, 4))
    parts = [
        gp.Additive(at="tokens", value=shift, units=(0, -1), positions=chosen)
        for chosen in ("last", "1:-1", (0, -2))
    ]
    task = gp.compile(tiny("padded"), gp.Program(parts))
    assert gp.backends.onnx.export(task, tmp_path / "shift.onnx").passed
    session = gp.backends.onnxruntime.Session(tmp_path / "shift.onnx", "cpu")
    ids = torch.randint(0, 10, (3, 7), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(7) < torch.tensor([[2], [7], [5]])).long()
    found = session.run(ids=ids.numpy(), mask=mask.numpy())
    np.testing.assert_allclose(found, task(ids, mask).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_the_units_of_attention_are_heads() -> None:
    """Zero ablation of a head is that of the slice of features which the projection reads."""
    model, graph = captured("gpt2")
    given = call()

    def hook(_module: Any, read: tuple[Tensor]) -> tuple[Tensor]:
        value = read[0].clone()
        value[:, :3, 16:] = 0
        return (value,)

    handle = model.transformer.h[1].attn.c_proj.register_forward_pre_hook(hook)
    with torch.no_grad():
        expected = model(**given, use_cache=False).logits
    handle.remove()
    for part in (
        gp.Parametric(Zero(), at="attention[1]", units=1, positions=":3"),
        gp.Parametric(Zero(), at="attention[1].heads[1]", positions=(0, 1, 2)),
    ):
        task = gp.compile(graph, gp.Program([part]))
        torch.testing.assert_close(logits(task, given), expected, rtol=1e-4, atol=1e-4)


def test_the_units_of_a_convolution_are_channels() -> None:
    model, graph = captured("residual")
    (images,), _ = CASES["residual"].call(3)
    place = graph.interfaces().resolve("hidden[1]")
    part = gp.Parametric(Zero(), at="hidden[1]", units="1:3")
    task = gp.compile(graph, gp.Program([part]))
    handle = model.get_submodule(place.key.removesuffix(":out")).register_forward_hook(
        lambda _m, _a, value: torch.cat([value[:, :1], 0 * value[:, 1:3], value[:, 3:]], 1)
    )
    with torch.no_grad():
        expected = model(images)
    handle.remove()
    torch.testing.assert_close(task(images), expected)


class Turned(nn.Module):
    """As many channels as rows and columns, on the last axis before the convolution turns them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv((2 * self.norm(x).relu()).permute(0, 3, 1, 2)).tanh()


def test_channels_are_found_by_the_layers_next_to_a_value() -> None:
    torch.manual_seed(0)
    model = Turned().eval()
    graph = gp.capture(model, (torch.rand(2, 4, 4, 4),))
    x = torch.rand(3, 4, 4, 4)
    for at, axis in (("norm:out", 3), ("conv:in", 1), ("conv:out", 1)):
        task = gp.compile(graph, gp.Program([gp.Parametric(Zero(), at=at, units=2)]))
        found = gp.record(task, x, at=at)[at]
        assert not found.select(axis, 2).any()
        whole = gp.record(graph, x, at=at)[at]
        kept = torch.tensor([0, 1, 3])
        assert torch.equal(found.index_select(axis, kept), whole.index_select(axis, kept))
    plain = gp.capture(nn.Softmax(-1), (torch.rand(2, 3, 4, 4),))
    with pytest.raises(InterfaceError, match="the axis of its units cannot be determined"):
        gp.compile(plain, gp.Program([gp.Parametric(Zero(), at="logits", units=0)]))


def test_positions_of_a_convolution_over_a_sequence() -> None:
    graph = gp.capture(nn.Conv1d(4, 4, 3, padding=1).eval(), (torch.rand(2, 4, 4),))
    task = gp.compile(graph, gp.Program([gp.Parametric(Zero(), at="logits", positions=1)]))
    found = task(torch.rand(3, 4, 4))
    assert not found[:, :, 1].any()
    assert found[:, :, [0, 2, 3]].all()


def test_positions_count_inserted_entries() -> None:
    """A part acts before those that are given after it, and counts what the value has there."""
    graph = tiny("padded")
    ids, mask = torch.arange(10).reshape(2, 5), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    slots = gp.Concatenative(at="tokens", length=2, value=gp.Fixed(torch.zeros(2, 4)))

    def changed(chosen: Any, slots_first: bool) -> list[list[int]]:
        one = gp.Additive(at="tokens", value=gp.Fixed(torch.ones(1)), positions=chosen)
        parts = [slots, one] if slots_first else [one, slots]
        tasks = [gp.compile(graph, gp.Program(program)) for program in (parts, [slots])]
        found, without = (gp.record(task, (ids, mask), at="tokens")["tokens"] for task in tasks)
        return [(row != 0).nonzero().flatten().tolist() for row in (found - without)[..., 0]]

    assert changed((0, 2), slots_first=True) == [[0, 2], [0, 2]]
    assert changed((0, 2), slots_first=False) == [[2, 4], [2, 4]]
    assert changed("last", slots_first=False) == [[4], [6]]
    with pytest.raises(InterfaceError, match="does not have the positions of the input 'mask'"):
        changed("last", slots_first=True)


def test_what_has_no_such_positions_or_units(tmp_path: Path) -> None:
    graph, text = captured("residual")[1], tiny("reader")
    one = gp.Fixed(torch.ones(1))

    def part(**options: Any) -> gp.Additive:
        return gp.Additive(value=one, **options)

    for source, changes, message in (
        (graph, part(at="hidden[0]", positions=1), "without an axis of positions"),
        (graph, part(at="hidden[0]", units=(1, 99)), "units; it does not have 99"),
        (graph, part(at="hidden[0]", units="99:"), "none of them is in '99:'"),
        (graph, part(at="input", positions=0), "without an axis of positions"),
        (text, part(at="tokens", positions="mask"), "not an input of the model"),
    ):
        with pytest.raises(InterfaceError, match=message):
            gp.compile(source, gp.Program([changes]))
    scaled = gp.compile(graph, gp.Program([gp.Scale(at="features", units=":2")]))
    with pytest.raises(ProgramError, match="PEFT changes whole values, but 'scale' has"):
        gp.peft.save(
            scaled, tmp_path / "ia3", base_model_name_or_path="base", task_type="FEATURE_EXTRACTION"
        )
    for wrong, message in (
        (part(positions=[0, 1]), r"must be an index, up to 256 indices or a range, not \[0, 1\]"),
        (part(units=True), "must be an index"),
        (part(units=()), "must be an index"),
        (part(units="last"), "must be an index"),
        (part(positions=tuple(range(257))), "must be an index"),
        (part(units=10**12), "must be an index"),
    ):
        with pytest.raises(ProgramError, match=message):
            gp.Program([wrong])


@pytest.mark.parametrize(("positions", "least"), [(4, 5), ((0, -3), 3), ("2:7", 1), ("last", 1)])
def test_texts_without_the_named_positions_are_refused(positions: Any, least: int) -> None:
    _, graph = captured("gpt2")
    part = gp.Additive(at="hidden[1]", value=gp.Fixed(torch.ones(32)), positions=positions)
    task = gp.compile(graph, gp.Program([part]))
    assert logits(task, call(least)).shape[1] == least
    if least > 1:
        with pytest.raises(DataError, match=f"has length {least - 1} on axis S.*needs {least}"):
            logits(task, call(least - 1))


def test_inserted_entries_make_up_for_positions() -> None:
    _, graph = captured("gpt2")
    slots = gp.Concatenative(at="tokens", length=3)
    part = gp.Additive(at="hidden[1]", value=gp.Fixed(torch.ones(32)), positions=4)
    task = gp.compile(graph, gp.Program([slots, part]))
    assert logits(task, call(2)).shape[1] == 5
    with pytest.raises(DataError, match=r"has length 1 on axis S.*needs 2"):
        logits(task, call(1))
