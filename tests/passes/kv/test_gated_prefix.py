"""A memory behind gates: attended to by itself, and added to what attention gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import graphprog as gp
from graphprog.errors import ProgramError
from tests.models.prefix_models import decoder, pairs_of, presence, some_ids

LENGTH = 4


def _gated(graph: gp.Graph, gates: str) -> gp.ReprogrammedModel:
    part = gp.Prefix(length=LENGTH, value=gp.Learnable("normal", 0.5), gates=gates)
    return gp.compile(graph, gp.Program([part]))


def _call(batch: int = 3, length: int = 9) -> dict[str, Any]:
    ids, mask = some_ids(batch, length), presence(batch, length)
    return {"input_ids": ids, "attention_mask": mask, "use_cache": False}


def _opened(task: gp.ReprogrammedModel) -> list[Tensor]:
    """Gates that are not zero, by operation."""
    (part,) = task.program.children()
    with torch.no_grad():
        part.gates.copy_(torch.linspace(-1.0, 2.0, part.gates.numel()).reshape(part.gates.shape))
    return [gate.detach() for gate in part.gates]


@pytest.mark.parametrize(
    ("gates", "name"),
    [
        *(("all", "gpt2"), ("each", "llama")),
        pytest.param("all", "llama", marks=pytest.mark.slow),
        pytest.param("each", "gpt2", marks=pytest.mark.slow),
    ],
)
def test_the_gated_memory_is_added(name: str, gates: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh one changes nothing; an open one is what attention to it alone gives."""
    model, graph = decoder(name)
    task = _gated(graph, gates)
    assert torch.equal(task(**_call()).logits, graph(**_call()).logits)
    opened, pairs = _opened(task), pairs_of(task)
    original, number = functional.scaled_dot_product_attention, iter(range(2))

    def attend(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        at = next(number)
        repeats = key.shape[1] // pairs[at][0].shape[0]
        heads = [
            one.repeat_interleave(repeats, 0).expand(len(key), -1, -1, -1) for one in pairs[at]
        ]
        found = original(query, key, value, *args, **kwargs)
        return found + opened[at] * original(query, *heads)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", attend)
    with torch.no_grad():
        wanted = model(**_call()).logits
    monkeypatch.undo()
    found = task(**_call()).logits
    assert not torch.allclose(found, graph(**_call()).logits, atol=1e-2)
    assert torch.allclose(found, wanted, atol=2e-6)


def test_it_is_saved_written_and_exported(tmp_path: Path) -> None:
    """Saved and loaded, in ONNX, and under a cache of keys and values."""
    _, graph = decoder("llama")
    task = _gated(graph, "each")
    _opened(task)
    gp.save(task, tmp_path / "gated.safetensors")
    again = gp.load(tmp_path / "gated.safetensors", graph)
    assert torch.equal(task(**_call()).logits, again(**_call()).logits)
    assert gp.backends.onnx.export(task, tmp_path / "gated.onnx").passed
    prompt = [some_ids(1, 5)[0].tolist()]
    kept = gp.generate(task, prompt, max_new_tokens=8, ends=[])
    plain = gp.generate(task, prompt, max_new_tokens=8, ends=[], use_cache=False)
    assert kept[0].ids == plain[0].ids
    assert kept[0].ids != gp.generate(graph, prompt, max_new_tokens=8, ends=[])[0].ids


def test_what_gates_there_are_is_told(tmp_path: Path) -> None:
    """Another name, or a folder of PEFT, which has none."""
    with pytest.raises(ProgramError, match="gates must be one of '', all, each, not 'some'"):
        gp.Prefix(gates="some")
    _, graph = decoder("gpt2")
    with pytest.raises(ProgramError, match="no prefixes with gates"):
        gp.peft.save(
            _gated(graph, "all"),
            tmp_path / "folder",
            base_model_name_or_path="gpt2",
            task_type="CAUSAL_LM",
        )
