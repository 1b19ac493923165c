"""Alignments that read a token, behind prompts: against the model called from its embeddings."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphprog as gp
from tests.support.byte_tokenizer import Bytes

PROMPT = 3


class Reader(nn.Module):
    """Each token reads those before it that are not padding."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(256, 8)
        self.head = nn.Linear(8, 256)

    def after(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.head((x * mask[..., None]).cumsum(1).tanh())

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.after(self.table(input_ids), attention_mask)


@functools.cache
def captured() -> tuple[Reader, gp.Graph]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Reader().eval()
    ids = torch.randint(0, 256, (2, 4))
    example = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    axes = {name: {0: "batch", 1: "sequence"} for name in example}
    return model, gp.capture(model, (), example, axes, tokenizer=Bytes())


IDS = torch.arange(21).reshape(3, 7)
MASK = (torch.arange(7) < torch.tensor([[7], [4], [1]])).long()


def expected(prompt: Tensor, offset: int) -> Tensor:
    """Logits of the last entry that is there, read by hand."""
    model, _ = captured()
    words, cut = model.table(IDS), 7 if offset == -1 else offset
    entries, present = prompt.expand(3, -1, -1), torch.ones(3, PROMPT, dtype=torch.int64)
    longer = torch.cat([words[:, :cut], entries, words[:, cut:]], 1)
    mask = torch.cat([MASK[:, :cut], present, MASK[:, cut:]], 1)
    logits = model.after(longer, mask)
    return torch.stack([row[kept.nonzero().max()] for row, kept in zip(logits, mask, strict=True)])


METHODS: dict[str, Any] = {
    "prompt tuning": (gp.methods.prompt_tuning(tokens=PROMPT), 0),
    "p-tuning": (gp.methods.p_tuning(tokens=PROMPT, hidden=4), 0),
    "in the middle": ((gp.Concatenative(at="tokens", length=PROMPT, offset=1, name="prompt"),), 1),
    "at the end": ((gp.Concatenative(at="tokens", length=PROMPT, offset=-1, name="prompt"),), -1),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("align", [gp.LastToken(), gp.Verbalizer({"a": "a", "b": "b"})])
def test_the_last_token_is_read_behind_a_prompt(method: str, align: gp.Alignment) -> None:
    parts, offset = METHODS[method]
    task = gp.compile(captured()[1], gp.Program(parts, align=align))
    (prompt,) = task.graph.evaluate([_entries(task)], (IDS, MASK)).values()
    with torch.no_grad():
        wanted = expected(prompt[0], offset)
        found = task(IDS, MASK)
    if isinstance(align, gp.Verbalizer):
        wanted = wanted[:, [ord("a"), ord("b")]]
    torch.testing.assert_close(found, wanted)


def _entries(task: gp.ReprogrammedModel) -> Any:
    """The node of the prompt [B, P, d] that is joined with the words."""
    joined = next(one.result for one in task.graph.insertions if one.kind == "axis")
    return next(part for part in task.graph.nodes[joined].args[0] if "expand" in part.name)
