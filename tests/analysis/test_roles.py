"""What the inputs and results of a graph are to someone who writes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphprog as gp
from graphprog.analysis.roles import roles_of
from graphprog.analysis.token_inputs import TokenInputs
from graphprog.errors import ProgramError
from tests.models import decoder_models as models
from tests.models.decoder_models import Decoder, captured


def written(model: nn.Module, prompt: list[int], length: int) -> list[int]:
    """The best tokens, one after the other, by the model itself."""
    ids = list(prompt)
    for _ in range(length):
        found = model(torch.arange(len(ids))[None], torch.tensor([ids]))
        scores = found[1] if isinstance(found, tuple) else found
        ids.append(int(scores[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("wanted", ["logits", "both"])
def test_tokens_are_those_of_which_there_are_logits(wanted: str) -> None:
    """Neither the longer table of positions nor a hidden state in front is taken for them."""
    torch.manual_seed(0)
    model = Decoder(wanted)
    graph = captured(model)
    assert roles_of(graph).tokens == TokenInputs.of(graph).ids == "ids"
    prompt = [5, 17, 3, 9]
    call = {"places": torch.arange(4)[None], "ids": torch.tensor([prompt])}
    with torch.no_grad():
        expected = written(model, prompt, 6)
    for cache in (True, False):
        (text,) = gp.generate(
            graph,
            call,
            max_new_tokens=6,
            ends=[],
            input_roles={"places": "positions"},
            use_cache=cache,
        )
        assert list(text.ids) == expected
    assert len(set(expected)) > 1


def test_a_hidden_state_is_not_taken_for_logits() -> None:
    """A model without its head scores no tokens, and what it returns is not read as if it did."""
    with pytest.raises(ProgramError, match="the width of its embeddings, 16, and no logit"):
        roles_of(captured(Decoder("hidden")))


def test_a_soft_prompt_is_written_behind_without_a_cache() -> None:
    """Its logits have entries for the inserted tokens too, as the error about the cache says."""
    _, graph = models.decoder("gpt2")
    torch.manual_seed(0)
    task = gp.compile(graph, gp.Program(gp.methods.prompt_tuning(tokens=3)))
    prompts = [models.ids_of(1, length)[0].tolist() for length in (5, 8)]
    found = gp.generate(task, prompts, max_new_tokens=5, ends=[], use_cache=False)
    for prompt, text in zip(prompts, found, strict=True):
        ids = list(prompt)
        for _ in range(5):
            row = torch.tensor([ids])
            with torch.no_grad():
                (logits,) = task.graph.run([row, torch.ones_like(row)])
            ids.append(int(logits[0, -1].argmax()))
        assert list(text.ids) == ids[len(prompt) :]


def test_roles_are_told_by_structure() -> None:
    """Which input is written, and how the others go on."""
    _, graph = models.decoder("llama")
    roles = roles_of(graph)
    assert (roles.tokens, roles.mask, roles.logits) == ("input_ids", "attention_mask", "logits")
    _, towers = models.two_towers("t5")
    assert roles_of(towers).tokens == "decoder_input_ids"
    assert set(roles_of(towers).meanings) == {"decoder_input_ids"}
