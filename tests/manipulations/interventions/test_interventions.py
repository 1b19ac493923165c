"""Ablation, exchange and edits of a subspace, against indexing in hooks on the model itself."""

from __future__ import annotations

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


def value_of(model: Any, given: dict[str, Tensor]) -> Tensor:
    """Output of block 1."""
    kept: list[Tensor] = []
    hooked(model, given, lambda value: kept.append(value.clone()))
    return kept[0]


def others() -> dict[str, Tensor]:
    given = call()
    return {**given, "input_ids": given["input_ids"].flip(0)}


def compiled(*parts: gp.Manipulation) -> gp.ReprogrammedModel:
    return gp.compile(captured("gpt2")[1], gp.Program(parts))


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_scaled_and_ablated_positions_and_units() -> None:
    model, _ = captured("gpt2")
    given, mean = call(), torch.linspace(-1, 1, 32)

    def scale(value: Tensor) -> None:
        value[:, :, 3:5] *= 0.5

    def zero(value: Tensor) -> None:
        for row, length in enumerate(LENGTHS):
            value[row, length - 2 : length] = 0

    def replace(value: Tensor) -> None:
        value[:, [0, -1], :8] = mean[:8]

    half = gp.Fixed(torch.tensor(0.5))
    for part, change in (
        (gp.Scale(at="hidden[1]", value=half, units="3:5"), scale),
        (gp.Ablation(at="hidden[1]", positions="tokens[-2:]"), zero),
        (gp.Ablation(gp.Fixed(mean), at="hidden[1]", positions="0:1,-1:", units=":8"), replace),
    ):
        close(logits(compiled(part), given), hooked(model, given, change))


def test_the_mean_and_the_values_of_other_examples() -> None:
    """Of the tokens that are there; each row of a batch gets another example."""
    model, graph = captured("gpt2")
    given = call()
    lasts = torch.stack([value_of(model, given)[row, n - 1] for row, n in enumerate(LENGTHS)])
    words = torch.cat([value_of(model, given)[row, :n] for row, n in enumerate(LENGTHS)])

    def mean(value: Tensor) -> None:
        value[:, 1] = words.mean(0)

    def resample(value: Tensor) -> None:
        for row, length in enumerate(LENGTHS):
            value[row, length - 1] = lasts[row % 2]

    (part,) = gp.instruments.ablation(graph, given, "hidden[1]")
    wanted = part.value
    assert isinstance(wanted, gp.Fixed)
    moved = gp.Ablation(wanted, at="hidden[1]", positions=1)
    close(logits(compiled(moved), given), hooked(model, given, mean))
    two = {name: value[:2] for name, value in given.items()}
    (part,) = gp.instruments.ablation(graph, two, "hidden[1]", how="resample", positions="last")
    close(logits(compiled(part), given), hooked(model, given, resample))
    (part,) = gp.instruments.ablation(graph, given, "attention[1]", positions=(0, 1), units=1)
    task = compiled(part)
    heads, before = (
        gp.record(run, given, at="attention[1]")["attention[1]"] for run in (task, graph)
    )
    expected = before[:, 1, :2].mean((0, 1))
    close(heads[:, 1, :2], expected.expand(3, 2, -1))
    assert torch.equal(heads[:, 0], before[:, 0])
    images, case = captured("residual")[1], CASES["residual"].call(4)[0][0]
    (part,) = gp.instruments.ablation(images, case, "hidden[1]", units=2)
    found = gp.record(gp.compile(images, gp.Program([part])), case, at="hidden[1]")["hidden[1]"]
    plain = gp.record(images, case, at="hidden[1]")["hidden[1]"]
    close(found[:, 2], plain[:, 2].mean(0).expand(4, -1, -1))
    assert torch.equal(found[:, :2], plain[:, :2])


@pytest.mark.parametrize("chosen", ["last", "mask:where"])
@pytest.mark.parametrize("how", ["mean", "resample"])
def test_ablation_at_positions_of_each_row(how: Any, chosen: str) -> None:
    """At lengths other than that of the examples: the values are those of tokens, one by one."""
    model, graph = captured("gpt2")
    value = value_of(model, call())
    if chosen == "last":
        examples = torch.stack([value[row, n - 1] for row, n in enumerate(LENGTHS)])
    else:
        examples = torch.cat([value[row, :n] for row, n in enumerate(LENGTHS)])
    (part,) = gp.instruments.ablation(graph, call(), "hidden[1]", how=how, positions=chosen)
    task = compiled(part)
    for length in (9, 5):
        given = call(length)
        last = [min(n, length) - 1 for n in LENGTHS]
        where = torch.zeros(3, length, dtype=torch.bool)
        if chosen == "last":
            where[range(3), last] = True
        else:
            where[0, [0, 4]] = where[2, 1:3] = True

        def change(hidden: Tensor) -> None:
            for row in range(3):
                new = examples.mean(0) if how == "mean" else examples[row]
                hidden[row, where[row]] = new  # noqa: B023

        more = {} if chosen == "last" else {"where": where}
        close(logits(task, {**given, **more}), hooked(model, given, change))


@pytest.mark.parametrize("chosen", ["last", "tokens[1:3]", (0, -1), "mask:where", None])
def test_values_of_another_run(chosen: Any) -> None:
    model, graph = captured("gpt2")
    given, donor = call(), gp.record(graph, others(), at="hidden[1]")["hidden[1]"]
    task = compiled(gp.Swap(at="hidden[1]", positions=chosen))
    where = torch.zeros(3, 9, dtype=torch.bool)
    for row, length in enumerate(LENGTHS):
        kept = {
            "last": [length - 1],
            "tokens[1:3]": [1, 2],
            (0, -1): [0, 8],
            "mask:where": [row, 5],
            None: range(9),
        }[chosen]
        where[row, list(kept)] = True
    more = {"where": where} if chosen == "mask:where" else {}

    other = value_of(model, others())

    def change(value: Tensor) -> None:
        value[where] = other[where]

    close(logits(task, {**given, "donor": donor, **more}), hooked(model, given, change))
    with task.disabled():
        assert torch.equal(logits(task, given), logits(graph, given))
    with pytest.raises(DataError, match="donor"):
        logits(task, given)


def test_a_donor_for_each_interface() -> None:
    _, graph = captured("gpt2")
    task = compiled(gp.Swap(at="hidden[*]", donor="other_*", positions=0))
    names = [spec.name for spec in task.inputs]
    assert names[-3:] == ["other_0", "other_1", "other_2"]
    donors = gp.record(graph, others(), at="hidden[*]")
    more = {f"other_{i}": donors[f"hidden[{i}]"] for i in range(3)}
    found = gp.record(task, {**call(), **more}, at="hidden[*]")
    for name, value in found.items():
        assert torch.equal(value[:, 0], donors[name][:, 0])


def test_whole_values_of_several_interfaces() -> None:
    """What a swap makes dead code is alive again when a swap after it is undone."""
    graph, (images,) = captured("residual")[1], CASES["residual"].call(2)[0]
    part = gp.Swap(at="hidden[*]", donor="other_*")
    task = gp.compile(graph, gp.Program([part]))
    donors = [*gp.record(graph, images.flip(0), at="hidden[*]").values()]
    torch.testing.assert_close(task(images, *donors), graph(images.flip(0)))
    with task.disabled():
        assert torch.equal(task(images), graph(images))


def orthonormal(rows: Tensor) -> Tensor:
    """The same span and orientation, by another method."""
    q, r = torch.linalg.qr(rows.T.double())
    return (q * r.diagonal().sign()).T.float()


def test_a_subspace_is_edited() -> None:
    """h + Rᵀ(Wh + b - Rh), and h + Rᵀ(Rs - Rh) for a value s of another run."""
    model, graph = captured("gpt2")
    given, donor = call(), gp.record(graph, others(), at="hidden[1]")["hidden[1]"]
    generator = torch.Generator().manual_seed(0)
    for part, more in (
        (gp.Subspace(3, at="hidden[1]", positions="last", name="edit"), {}),
        (gp.Subspace(3, "donor", at="hidden[1]", positions="last", name="edit"), {"donor": donor}),
    ):
        task = compiled(part)
        state = task.program_state()
        rows = state["program.edit.rows"]
        torch.testing.assert_close(rows @ rows.T, torch.eye(3), rtol=1e-5, atol=1e-6)
        state["program.edit.rows"] = rows = torch.randn(3, 32, generator=generator)
        task.load_program_state(state)
        basis = orthonormal(rows)

        def change(value: Tensor) -> None:
            for row, length in enumerate(LENGTHS):
                h = value[row, length - 1].clone()
                if more:  # noqa: B023
                    aim = basis @ donor[row, length - 1]  # noqa: B023
                else:
                    aim = state["program.edit.aim.weight"] @ h + state["program.edit.aim.bias"]  # noqa: B023
                value[row, length - 1] = h + basis.T @ (aim - basis @ h)  # noqa: B023

        close(logits(task, {**given, **more}), hooked(model, given, change))


class Sum(nn.Module):
    """Says whether the sum of two numbers, hidden in a rotated space, is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.turn, self.same = nn.Linear(8, 8, bias=False), nn.Identity()
        nn.init.orthogonal_(self.turn.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = self.same(self.turn(x)) @ self.turn.weight
        total = 4 * (h[:, 0] + h[:, 1])
        return torch.stack([-total, total], 1)


def test_distributed_alignment_search_finds_where_a_number_lies() -> None:
    """The labels say what happens if the first number is that of another example."""
    torch.manual_seed(0)
    model = Sum().eval()
    graph = gp.capture(model, (torch.randn(2, 8),))
    x, s = torch.randn(512, 8), torch.randn(512, 8)
    donor = gp.record(graph, s, at="same:out")["same:out"]
    labels = (s[:, 0] + x[:, 1] > 0).long()
    part = gp.Subspace(1, "donor", at="same:out")
    task = gp.compile(graph, gp.Program([part], align=gp.FixedMap(sources=(0, 1))))
    gp.fit(task, (x, donor, labels), epochs=30, optimizer=gp.Adam(0.1), progress=False)
    direction = orthonormal(task.program_state()["program.linear_subspace.rows"])[0]
    assert abs(float(direction @ model.turn.weight[:, 0].detach())) > 0.98


def test_entries_at_positions_that_depend_on_the_row(tmp_path: Path) -> None:
    graph = tiny("padded")
    entries = torch.tensor([[10.0], [20.0]]).expand(2, 4).clone()
    ids = torch.randint(0, 10, (3, 7), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(7) < torch.tensor([[2], [7], [5]])).long()
    before = gp.record(graph, (ids, mask), at="tokens")["tokens"]
    for chosen, places in (
        ("tokens[-2:]", ([0, 1], [5, 6], [3, 4])),
        ("mask", ([0, 1], [0, 1], [0, 1])),
        ((-1, 2), ([2, 6], [2, 6], [2, 6])),
    ):
        part = gp.Replacement(at="tokens", length=2, value=gp.Fixed(entries), positions=chosen)
        task = gp.compile(graph, gp.Program([part]))
        expected = before.clone()
        for row, own in enumerate(places):
            expected[row, list(own)] = entries
        assert torch.equal(gp.record(task, (ids, mask), at="tokens")["tokens"], expected)
        assert gp.backends.onnx.export(task, tmp_path / "put.onnx").passed
        session = gp.backends.onnxruntime.Session(tmp_path / "put.onnx", "cpu")
        found = session.run(ids=ids.numpy(), mask=mask.numpy())
        np.testing.assert_allclose(found, task(ids, mask).detach().numpy(), rtol=1e-5, atol=1e-5)


def test_interventions_are_saved_and_exported(tmp_path: Path) -> None:
    graph = tiny("padded")
    rows = gp.Fixed(torch.linspace(-1, 1, 20).reshape(5, 4))
    parts = [
        gp.Ablation(rows, True, at="tokens", positions="tokens[:1]"),
        gp.Subspace(2, at="tokens", positions="last"),
        gp.Subspace(2, "donor", at="tokens", positions=0, name="exchange"),
        gp.Swap(at="tokens", units=1, positions="mask:where"),
    ]
    task = gp.compile(graph, gp.Program(parts))
    ids = torch.randint(0, 10, (3, 7), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(7) < torch.tensor([[2], [7], [5]])).long()
    given = {"ids": ids, "mask": mask, "donor": torch.randn(3, 7, 4), "where": ids > 4}
    expected = task(**given).detach()
    gp.save(task, tmp_path / "parts.safetensors")
    loaded = gp.load(tmp_path / "parts.safetensors", graph)
    assert loaded.spec == task.spec
    assert torch.equal(loaded(**given), expected)
    gp.backends.onnx.export(task, tmp_path / "parts.onnx", program="overridable")
    session = gp.backends.onnxruntime.Session(tmp_path / "parts.onnx", "cpu")
    found = session.run(**{name: value.numpy() for name, value in given.items()})
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)


def test_what_cannot_intervene() -> None:
    graph = tiny("padded")
    for make, message in (
        (lambda: gp.Ablation(torch.ones(4)), "value must be Fixed, Learnable or None"),
        (lambda: gp.Ablation(resample=True), "needs the values of examples"),
        (lambda: gp.Scale(value=2.0), "value must be Fixed, Learnable or None"),
        (lambda: gp.Swap(donor="x = 1"), "must be the name of an input"),
        (lambda: gp.Swap(donor="lambda"), "must be the name of an input"),
        (lambda: gp.Subspace(0), "rank must be an integer of at least 1"),
        (lambda: gp.Program([gp.Swap(positions="mask:a b")]), "must be the name of an input"),
        (lambda: gp.Replacement(length=2, positions="last"), "2 entries for positions='last'"),
        (lambda: gp.Replacement(offset=1, positions="1:"), "exclude one another"),
        (lambda: gp.methods.loreft(first=0, last=0), "last must be an integer of at least 1"),
    ):
        with pytest.raises(ProgramError, match=message):
            make()
    for parts, error, message in (
        ([gp.Subspace(5, at="tokens")], ProgramError, "rank 5 does not fit into 4 features"),
        ([gp.Ablation(gp.Fixed(torch.ones(3)), at="tokens")], ProgramError, "does not broadcast"),
        ([gp.Swap(at="tokens", donor="mask")], InterfaceError, "is one of the model"),
        (
            [gp.Swap(at="tokens"), gp.Swap(at="logits")],
            InterfaceError,
            "put a \\* into it",
        ),
        (
            [gp.Replacement(at="tokens", length=1, axis=2, positions=0)],
            InterfaceError,
            "positions on axis 1, not 2",
        ),
    ):
        with pytest.raises(error, match=message):
            gp.compile(graph, gp.Program(parts))
