"""Alignments that read a token, behind prompts: against the model called from its embeddings."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.errors import ProgramError
from graphprog.spec.registry import format_spec, parse_spec
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


class Last(nn.Module):
    """The reader's logits at the last token, as a model of its own."""

    def __init__(self, model: Reader) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits = self.model(input_ids, attention_mask)
        return logits[torch.arange(len(logits)), attention_mask.sum(1) - 1]


@pytest.mark.parametrize(
    "align", [gp.BayesianMap(3, top=5), gp.IterativeMap(3), gp.LinearHead(3), gp.RandomMap(3)]
)
def test_an_alignment_after_the_last_token_is_that_of_a_model_that_returns_it(
    align: gp.Alignment,
) -> None:
    model, graph = captured()
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
    alone = gp.capture(Last(model), (IDS[:2], MASK[:2]), dynamic_axes=axes)
    composed = gp.Program(align=dataclasses.replace(align, after=gp.LastToken()))
    task = gp.compile(graph, composed)
    expected = gp.compile(alone, gp.Program(align=align))
    expected.load_program_state(task.program_state())
    data = (IDS.repeat(6, 1), MASK.repeat(6, 1), torch.arange(18) % 3)
    histories = [gp.fit(one, data, epochs=2, lr=0.1) for one in (task, expected)]
    assert histories[0].records == histories[1].records
    for name, value in expected.program_state().items():
        torch.testing.assert_close(task.program_state()[name], value)
    with torch.no_grad():
        torch.testing.assert_close(task(IDS, MASK), expected(IDS, MASK))
        with task.disabled():
            given = {"input_ids": IDS, "attention_mask": MASK}
            assert torch.equal(task(**given), graph(**given))


def test_composed_alignments_are_text_and_files(tmp_path: Path) -> None:
    align = gp.BayesianMap(3, after=gp.LastToken())
    assert parse_spec(format_spec(align)) == align
    _, graph = captured()
    task = gp.compile(graph, gp.Program(gp.methods.prompt_tuning(tokens=2), align=align))
    gp.fit(task, (IDS, MASK, torch.arange(3)), epochs=1)
    gp.save(task, tmp_path / "task.safetensors")
    again = gp.load(tmp_path / "task.safetensors", graph)
    assert again.spec == task.spec
    assert torch.equal(again(IDS, MASK), task(IDS, MASK))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: gp.BayesianMap(3, after=gp.Verbalizer(["a", "b"])), "needs neither words nor"),
        (lambda: gp.LinearHead(3, after=gp.FrequencyMap(4)), "needs neither words nor examples"),
        (lambda: gp.LinearHead(3, after=gp.Score(["yes", "no"])), "needs neither words nor"),
        (lambda: gp.LinearHead(3, after="last"), "after must be an alignment"),
        (lambda: gp.LinearHead(3, at="features", after=gp.LastToken()), "has no meaning beside"),
    ],
)
def test_what_cannot_come_first_is_refused(make: Any, said: str) -> None:
    with pytest.raises(ProgramError, match=said):
        make()


def test_a_mask_of_another_length_is_refused() -> None:
    class Summarizer(Reader):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return self.after(self.table(input_ids), attention_mask)[:, ::2]

    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
    graph = gp.capture(Summarizer().eval(), (IDS, MASK), dynamic_axes=axes, tokenizer=Bytes())
    with pytest.raises(ProgramError, match=r"entries, but there are S tokens"):
        gp.compile(graph, gp.Program(align=gp.LastToken()))
