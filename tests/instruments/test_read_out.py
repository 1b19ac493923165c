"""Lenses, probes and comparisons, against the same written by hand."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

import graphprog as gp
from graphprog.errors import DataError, FileError, InterfaceError, ProgramError
from graphprog.instruments.compare import compare_values
from tests.models.zoo import CASES, captured


def test_a_logit_lens_is_the_end_of_the_model() -> None:
    model, graph = captured("gpt2")
    call = CASES["gpt2"].call(3)[1]
    found = gp.lens(graph)({name: call[name] for name in ("input_ids", "attention_mask")})
    with torch.no_grad():
        states = model(**call, output_hidden_states=True).hidden_states[1:-1]
        for index, state in enumerate(states):
            expected = model.lm_head(model.transformer.ln_f(state))
            torch.testing.assert_close(found[f"hidden[{index}]"], expected, rtol=1e-5, atol=1e-6)
        last = [*found.values()][-1]
        torch.testing.assert_close(last, model(**call).logits, rtol=1e-5, atol=1e-6)


def test_a_tuned_lens_comes_nearer_to_the_model() -> None:
    _, graph = captured("gpt2")
    ids = torch.randint(1, 90, (32, 6), generator=torch.Generator().manual_seed(0))
    data = (ids, torch.ones_like(ids))
    before = graph.weight_hash()
    lens = gp.lens(graph)
    first = lens.tune(data, epochs=1, batch_size=8)
    last = lens.tune(data, epochs=12, batch_size=8, lr=1e-2)
    assert set(first) == {"hidden[0]", "hidden[1]"}
    assert all(last[name] < first[name] for name in first)
    assert graph.weight_hash() == before
    with pytest.raises(InterfaceError, match="differ in shape"):
        gp.lens(graph, at=["hidden[0]", "logits"])


def test_a_lens_is_plotted(tmp_path: Path) -> None:
    graph = captured("gpt2")[1]
    ids = torch.randint(1, 90, (2, 5), generator=torch.Generator().manual_seed(0))
    call = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    lens = gp.lens(graph)
    drawing = lens.plot(call, tmp_path / "a.png", tokens=[*"abc$e"], decode=lambda n: f"{n}", row=1)
    assert (tmp_path / "a.png").stat().st_size > 5000
    axis, said = drawing.axes[0], lens(call)
    likeliest = torch.stack([value[1] for value in said.values()]).softmax(-1).max(-1)
    np.testing.assert_array_equal(axis.images[0].get_array(), likeliest.values.numpy())
    texts = [text.get_text() for text in axis.texts]
    assert texts == [str(number) for number in likeliest.indices.flatten().tolist()]
    assert [label.get_text() for label in axis.get_xticklabels()] == [*"abc", r"\$", "e"]
    assert [label.get_text() for label in axis.get_yticklabels()] == lens.names
    for options, message in (({"row": 2}, "no row 2 of 2"), ({"tokens": ["a"]}, "1 tokens are no")):
        with pytest.raises(DataError, match=message):
            lens.plot(call, **options)


def test_a_tuned_lens_is_saved_and_exported(tmp_path: Path) -> None:
    """A part of it is the affine map, and then the end of the model."""
    model, graph = captured("gpt2")
    ids = torch.randint(1, 90, (16, 6), generator=torch.Generator().manual_seed(0))
    call = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    lens = gp.lens(graph)
    with pytest.raises(ProgramError, match="no maps to save"):
        lens.save(tmp_path / "maps")
    lens.tune((ids, torch.ones_like(ids)), epochs=1, batch_size=8, lr=1e-2)
    said, values = lens(call), gp.record(graph, call, at="hidden[*]")
    weight, bias = (lens.maps["hidden_0"].get_parameter(name) for name in ("weight", "bias"))
    with torch.no_grad():
        by_hand = model.lm_head(model.transformer.ln_f(values["hidden[0]"] @ weight.T + bias))
    torch.testing.assert_close(said["hidden[0]"], by_hand, rtol=1e-4, atol=1e-5)
    lens.save(tmp_path / "maps")
    again = gp.lens(graph).load(tmp_path / "maps")
    for name, value in again(call).items():
        assert torch.equal(value, said[name])
    for name in lens.names:  # the last has no map
        assert torch.equal(lens.part(name)(values[name]), said[name])
    part = lens.part("hidden[0]")
    assert "projection" in str(part)
    assert gp.backends.onnx.export(part, tmp_path / "part.onnx").passed
    session = gp.backends.onnxruntime.Session(tmp_path / "part.onnx", "cpu")
    found = session.run(values["hidden[0]"][:3].numpy())
    np.testing.assert_allclose(found, said["hidden[0]"][:3].numpy(), rtol=1e-4, atol=1e-4)
    with pytest.raises(InterfaceError, match=r"does not read 'hidden\[7\]'"):
        lens.part("hidden[7]")
    for other, folder, message in (
        (gp.lens(graph, at="hidden[0:2]"), tmp_path / "maps", "source"),
        (gp.lens(graph), tmp_path / "nowhere", "hidden_0"),
    ):
        with pytest.raises(FileError, match=message):
            other.load(folder)
    other = gp.compile(lens.end, gp.Program([gp.Additive()]))
    gp.save(other, tmp_path / "maps" / "hidden_0.safetensors")
    with pytest.raises(FileError, match="is not the map of a lens"):
        gp.lens(graph).load(tmp_path / "maps")


def test_a_probe_is_read_back_as_a_head(tmp_path: Path) -> None:
    graph = captured("residual")[1]
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(60, 3, 16, 16, generator=generator)
    labels = (images[:, 0].mean((1, 2)) > 0).long()
    found = gp.record(graph, (images, labels), at="hidden[*]", reduce="mean", to=tmp_path / "a")
    probes = gp.probe(found, folds=3)
    assert [row.name for row in probes.rows] == [name for name in found if name != "labels"]
    assert probes.best.accuracy > probes.best.control
    task = probes.compile(graph)
    values = found[probes.best.name].tensor().numpy()
    expected = values @ probes.best.weight.numpy().T + probes.best.bias.numpy()
    with torch.no_grad():
        np.testing.assert_allclose(task(images).numpy(), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(FileError, match="recorded with another graph"):
        probes.compile(captured("sequential")[1], probes.best.name)
    assert "±" in str(probes)
    probes.plot(tmp_path / "probes.png")
    assert (tmp_path / "probes.png").stat().st_size > 5000


def test_a_probe_of_a_compiled_model_is_its_head(tmp_path: Path) -> None:
    graph = captured("residual")[1]
    vector = gp.Additive(at="hidden[0]", value=gp.Learnable("normal"))
    task = gp.compile(graph, gp.Program([vector], align=gp.FixedMap(classes=2)), seed=5)
    state = task.program_state()
    state["program.additive.value"] = torch.randn_like(state["program.additive.value"])
    task.load_program_state(state)
    images = torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    data = (images, torch.arange(12) % 2)
    found = gp.record(task, data, at="hidden[1]", reduce="mean", to=tmp_path)
    probes = gp.probe(found, folds=2)
    headed = probes.compile(task)
    row, values = probes.best, found["hidden[1]"].tensor()
    expected = values @ row.weight.T + row.bias
    torch.testing.assert_close(headed(images).detach(), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(FileError, match="recorded with another graph"):
        probes.compile(graph)


def test_what_cannot_be_probed(tmp_path: Path) -> None:
    graph = captured("residual")[1]
    found = gp.record(graph, torch.randn(6, 3, 16, 16), at="hidden[0]", to=tmp_path)
    for labels, folds, message in (
        (None, 2, "no labels"),
        ([0, 1], 2, "one for each row"),
        ([0, 0, 0, 0, 0, 1], 2, "fewer than 2 folds"),
        ([0, 2, 0, 2, 0, 2], 2, "classes 0, 1"),
    ):
        with pytest.raises(DataError, match=message):
            gp.probe(found, labels, folds=folds)
    with pytest.raises(DataError, match="has no nowhere"):
        gp.probe(found, [0, 1, 0, 1, 0, 1], at="nowhere", folds=2)


def test_a_comparison_says_where_two_models_part(tmp_path: Path) -> None:
    graph = captured("residual")[1]
    images = CASES["residual"].call(4)[0][0]
    task = gp.compile(
        graph, gp.Program([gp.Additive(at="hidden[0]", value=gp.Fixed(torch.ones(1)))])
    )
    found = gp.compare(graph, task, images, at=["input", "hidden[*]", "logits"])
    assert found.parts_at(0.0) == "hidden[0]"
    row = {one.name: one for one in found.rows}
    one, other = (
        model.evaluate(["hidden[1]"], [images])["hidden[1]"] for model in (graph, task.graph)
    )
    left, right = (
        value.double().flatten(1) - value.double().flatten(1).mean(0) for value in (one, other)
    )
    expected = (left.T @ right).norm() ** 2 / ((left.T @ left).norm() * (right.T @ right).norm())
    assert row["hidden[1]"].cka == pytest.approx(float(expected), rel=1e-9)
    assert row["hidden[1]"].relative == pytest.approx(
        float((one - other).abs().max() / one.abs().max()), rel=1e-6
    )
    assert row["input"].cosine == pytest.approx(1.0)
    found.plot(tmp_path / "comparison.png")
    with pytest.raises(InterfaceError, match="the second model has no"):
        gp.compare(graph, captured("sequential")[1], images)


def test_the_first_interface_that_differs_is_found() -> None:
    """As a walk over all modules with hooks finds it, in the order in which they are called."""
    model, graph = captured("residual")
    images = CASES["residual"].call(4)[0][0]
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.blocks[1].get_parameter(next(iter(dict(other.blocks[1].named_parameters())))).mul_(2)
    values: list[dict[str, torch.Tensor]] = []
    for one in (model, other):
        kept: dict[str, torch.Tensor] = {}
        handles = [
            part.register_forward_hook(lambda _m, _a, out, p=path: kept.setdefault(p, out.clone()))  # noqa: B023
            for path, part in one.named_modules()
        ]
        with torch.no_grad():
            one(images)
        values.append(kept)
        for handle in handles:
            handle.remove()
    expected = next(path for path in values[0] if not torch.equal(*(v[path] for v in values)))
    changed = gp.capture(other, (images,))
    assert gp.instruments.first_divergence(graph, changed, images) == f"{expected}:out"
    assert gp.instruments.first_divergence(graph, graph, images, tolerance=0.0) is None
    part = gp.Additive(at="hidden[1]", value=gp.Fixed(torch.ones(1)))
    task = gp.compile(graph, gp.Program([part]))
    assert gp.instruments.first_divergence(graph, task, images) == "blocks.1:out"
    with pytest.raises(InterfaceError, match="no output in common"):
        gp.instruments.first_divergence(graph, graph.cut("input", "hidden[0]"), images)


def test_a_file_in_int8_is_compared_with_the_graph(tmp_path: Path) -> None:
    graph = captured("residual")[1]
    images = CASES["residual"].call(4)[0][0]
    names = ["hidden[0]", "hidden[2]", "logits"]
    gp.backends.onnx.export(graph, tmp_path / "wide.onnx", outputs=names)
    gp.backends.onnx.quantize(tmp_path / "wide.onnx", tmp_path / "small.onnx", "int8")
    wide, small = (
        gp.backends.onnxruntime.Session(tmp_path / f"{name}.onnx", "cpu")
        for name in ("wide", "small")
    )
    exact = gp.compare(graph, wide, images, at=names)
    assert exact.parts_at(1e-5) is None
    found = gp.compare(graph, small, images, at=names)
    assert found.parts_at(1e-4) == "hidden[0]"
    values = small.run(images, outputs=names)
    for row in found.rows:
        value = gp.record(graph, images, at=row.name)[row.name].numpy()
        gap = float(np.abs(values[row.name] - value).max())
        assert row.absolute == pytest.approx(gap, rel=1e-4)
        assert row.within(gap)
        assert not row.within(1e-9)
        angle = np.vdot(value, values[row.name]) / np.linalg.norm(value)
        assert row.cosine == pytest.approx(angle / np.linalg.norm(values[row.name]), abs=1e-5)


@pytest.mark.parametrize("shape", [(5, 40), (300, 6), (60_000, 3)])
def test_the_alignment_of_few_rows_and_of_many(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    left, noise = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    right = left + noise
    x, y = (rows - rows.mean(0) for rows in (left, right))
    # Kornblith et al., 2019, equation 5: of covariances, which count no pairs of rows
    expected = (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    assert compare_values("a", left, right).cka == pytest.approx(float(expected), rel=1e-9)
