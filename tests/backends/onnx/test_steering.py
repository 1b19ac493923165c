"""Exported files that are steered by inputs, against hooks on the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import graphprog as gp
from graphprog.errors import BackendError, DataError, InterfaceError, ProgramError
from tests.models.zoo import captured

IDS = torch.randint(1, 90, (3, 6), generator=torch.Generator().manual_seed(2))
CALL = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}


def hooked(model: Any, additions: dict[int, torch.Tensor]) -> np.ndarray:
    """Logits with something added to the output of blocks."""

    def hook(added: torch.Tensor) -> Any:
        return lambda _m, _a, result: (
            (result[0] + added, *result[1:]) if isinstance(result, tuple) else result + added
        )

    blocks = model.transformer.h
    handles = [blocks[i].register_forward_hook(hook(one)) for i, one in additions.items()]
    try:
        with torch.no_grad():
            return model(**CALL, use_cache=False).logits.numpy()
    finally:
        for handle in handles:
            handle.remove()


def test_every_row_has_its_vector(tmp_path: Path) -> None:
    model, graph = captured("gpt2")
    path = tmp_path / "steered.onnx"
    names = ["hidden[0]", "hidden[1]"]
    report = gp.backends.onnx.export(graph, path, steer=names, outputs=["logits", "hidden[1]"])
    assert report.passed
    session = gp.backends.onnxruntime.Session(path)
    width = model.config.n_embd
    vectors = {name: torch.randn(3, width) for name in ("vector_hidden_0", "vector_hidden_1")}
    for strength in (0.0, 2.5, -1):
        added = {i: strength * v[:, None] for i, v in enumerate(vectors.values())}
        found = session.run(**CALL, **vectors, strength=strength, outputs=["logits"])["logits"]
        np.testing.assert_allclose(found, hooked(model, added), rtol=1e-4, atol=1e-4)
    with pytest.raises(DataError, match="strength"):
        session.run(**CALL, **vectors)
    with pytest.raises(DataError, match="finite"):
        session.run(**CALL, **vectors, strength=float("nan"))
    wrong = {**vectors, "vector_hidden_0": torch.randn(3, width + 1)}
    with pytest.raises(DataError, match="vector_hidden_0"):
        session.run(**CALL, **wrong, strength=1.0)


@pytest.mark.parametrize("mode", ["folded", "overridable"])
def test_a_vector_in_the_file_and_its_strength_as_an_input(tmp_path: Path, mode: Any) -> None:
    """Over a program, whose own vector acts as well."""
    model, graph = captured("gpt2")
    own, vector = torch.randn(2, model.config.n_embd)
    program = gp.Program([gp.Additive(at="hidden[0]", value=gp.Learnable(shape=tuple(own.shape)))])
    task = gp.compile(graph, program)
    with torch.no_grad():
        task.program.additive.value.copy_(own)
    path = tmp_path / "steered.onnx"
    gp.backends.onnx.export(task, path, program=mode, steer={"hidden[0]": vector})
    session = gp.backends.onnxruntime.Session(path)
    found = session.run(**CALL, strength=3)
    np.testing.assert_allclose(found, hooked(model, {0: own + 3 * vector}), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_steered(tmp_path: Path) -> None:
    graph = captured("gpt2")[1]
    export, path = gp.backends.onnx.export, tmp_path / "no.onnx"
    for steer, error, message in (
        (["nowhere"], InterfaceError, "nowhere"),
        ([], InterfaceError, "each once"),
        (["hidden[0]", "hidden[0]"], InterfaceError, "each once"),
        (["input:input_ids"], InterfaceError, "floats"),
        ({"hidden[0]": torch.zeros(3)}, ProgramError, "is needed"),
    ):
        with pytest.raises(error, match=message):
            export(graph, path, steer=steer)
    with pytest.raises(BackendError, match="per_row"):
        export(graph, path, steer=["hidden[0]"], program="per_row")
    assert not path.exists()
