"""Alignments by rules: words, answers, the last token, slices; against the model read eagerly."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.errors import DataError, ProgramError
from graphprog.spec.registry import format_spec, from_json, parse_spec, to_json
from tests.models.text_models import (
    QUERIES,
    REVIEWS,
    SHOWN,
    TEMPLATE,
    behind,
    opened,
    reader,
    tokenizer,
)

CAUSAL = ["gpt2", pytest.param("llama", marks=pytest.mark.slow)]
ASKED = gp.Demonstrations([], TEMPLATE)
GOOD = {"good": " good", "bad": " bad"}


def number(name: str, word: str) -> int:
    """The one token of a word behind a text."""
    before, whole = opened(name, "Sentiment:"), opened(name, f"Sentiment:{word}")
    (found,) = whole[len(before) :]
    return found


def without_head(task: gp.ReprogrammedModel) -> bool:
    """Whether the words' head is not computed for all positions and words."""
    heads = task.graph.module.graph.find_nodes(
        op="call_function", target=torch.ops.aten.linear.default
    )
    return all(400 not in node.meta.get("val", torch.empty(0)).shape[2:] for node in heads)


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_last_token_is_the_last_that_is_there(name: str, side: str) -> None:
    model, graph = reader(name)
    task = gp.compile(graph, gp.Program(align=gp.LastToken()))
    ids = torch.tensor([[5, 9, 30, 7, 41], [8, 50, 60, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    if side == "left":
        ids, mask = (
            value.roll(2, 1).where(torch.tensor([[0], [1]]) == 1, value) for value in (ids, mask)
        )
    last = {"left": [4, 4], "right": [4, 2]}[side]
    with torch.no_grad():
        wanted = model(input_ids=ids, attention_mask=mask).logits[[0, 1], last]
    assert (task(ids, mask) - wanted).abs().max() < 1e-5
    assert without_head(task)
    assert not without_head(gp.compile(graph, gp.Program()))


def test_without_a_mask_it_is_the_last_position() -> None:
    model, graph = reader("gpt2", masked=False)
    task = gp.compile(graph, gp.Program(align=gp.LastToken()))
    ids = torch.tensor([[5, 9, 30], [8, 50, 60]])
    with torch.no_grad():
        assert (task(ids) - model(input_ids=ids).logits[:, -1]).abs().max() < 1e-5
    with pytest.raises(DataError, match="several lengths"):
        task.encode(["a", "a film"])


@pytest.mark.parametrize("name", CAUSAL)
def test_words_of_labels_are_read_where_the_answer_begins(name: str) -> None:
    model, graph = reader(name)
    task = gp.compile(graph, gp.Program([ASKED], align=gp.Verbalizer(GOOD)))
    found = task(**task.encode(QUERIES))
    for query, row in zip(QUERIES, found, strict=True):
        logits = behind(model, name, TEMPLATE.query({"text": query}))
        wanted = logits[[number(name, " good"), number(name, " bad")]]
        assert (row - wanted).abs().max() < 1e-5
    assert task.spec.contract.labels == ("good", "bad")
    assert without_head(task)


WORDS = {"up": [" good", " great", " warm and"], "down": [" bad", " terrible"]}


@pytest.mark.parametrize(
    ("of_tokens", "of_words"),
    [("first", "mean"), ("mean", "max"), ("max", "sum"), ("mean", "mean"), ("first", "sum")],
)
def test_several_words_and_tokens_are_combined_as_said(of_tokens: Any, of_words: Any) -> None:
    model, graph = reader("gpt2")
    align = gp.Verbalizer(WORDS, of_tokens=of_tokens, of_words=of_words)
    task = gp.compile(graph, gp.Program([ASKED], align=align))
    (found,) = task(**task.encode(QUERIES[:1]))
    logits = behind(model, "gpt2", TEMPLATE.query({"text": QUERIES[0]}))
    start = len(opened("gpt2", "Sentiment:"))
    for label, row in zip(WORDS.values(), found, strict=True):
        words = []
        for word in label:
            tokens = logits[opened("gpt2", f"Sentiment:{word}")[start:]]
            words.append(
                {"first": tokens[0], "mean": tokens.mean(), "max": tokens.max()}[of_tokens]
            )
        all_words = torch.stack(words)
        wanted = {"mean": all_words.mean(), "max": all_words.max(), "sum": all_words.logsumexp(0)}
        assert abs(row - wanted[of_words]) < 1e-5
    lengths = [len(opened("gpt2", f"Sentiment:{word}")) - start for word in WORDS["up"]]
    assert max(lengths) > 1, "a word of several tokens is among them"


def test_calibration_divides_by_what_labels_get_without_content(tmp_path: Path) -> None:
    _, graph = reader("gpt2")
    plain = gp.compile(graph, gp.Program([SHOWN], align=gp.Verbalizer(GOOD)))
    free = gp.text.CONTENT_FREE
    align = gp.Verbalizer(GOOD, content_free=free)
    task = gp.compile(graph, gp.Program([SHOWN], align=align))
    without = plain(**plain.encode(list(free))).softmax(1)
    given = task.encode(QUERIES)
    wanted = gp.text.contextual_calibration(plain(**given).softmax(1), without)
    assert torch.allclose(task(**given).softmax(1), wanted, atol=1e-6)
    assert not torch.allclose(wanted, plain(**given).softmax(1), atol=1e-2)
    gp.save(task, tmp_path / "task.safetensors")
    again = gp.load(tmp_path / "task.safetensors", graph)
    assert torch.equal(again(**given), task(**given))


def test_a_gap_is_filled_by_a_masked_model() -> None:
    model, graph = reader("bert")
    template = gp.Template("{text}. It was {label}.")
    words = {"good": ["good", "great"], "bad": "bad"}
    parts = [gp.Instruction("Review:", kept="text", separator=" "), gp.Demonstrations([], template)]
    task = gp.compile(graph, gp.Program(parts, align=gp.Verbalizer(words, position="mask")))
    tokens = tokenizer("bert")
    for query, row in zip(QUERIES, task(**task.encode(QUERIES)), strict=True):
        ids = tokens(f"Review: {query}. It was [MASK].")["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, ids.index(3)]
        good, great, bad = logits[tokens.convert_tokens_to_ids(["good", "great", "bad"])]
        assert (row - torch.stack([(good + great) / 2, bad])).abs().max() < 1e-5
    assert without_head(task)


@pytest.mark.slow
def test_a_masked_model_with_words_is_exported(tmp_path: Path) -> None:
    _, graph = reader("bert")
    template = gp.Demonstrations([], gp.Template("{text}. It was {label}."))
    words = gp.Verbalizer(
        {"good": ["good", "great"], "bad": "bad"}, position="mask", of_words="sum"
    )
    task = gp.compile(graph, gp.Program([template], align=words))
    given = tuple(task.encode(QUERIES).values())
    assert gp.backends.onnx.export(task, tmp_path / "mask.onnx", inputs=given).passed


def test_a_gap_stands_in_plain_queries_too() -> None:
    _, graph = reader("bert")
    template = gp.Demonstrations([], gp.Template("{text}. It was {label}."))
    align = gp.Verbalizer({"good": "good", "bad": "bad"}, position="mask")
    task = gp.compile(graph, gp.Program([template], align=align))
    plain = gp.compile(graph, gp.Program(align=align))
    asked = plain.encode([f"{query}. It was [MASK]." for query in QUERIES])
    assert torch.equal(plain(**asked), task(**task.encode(QUERIES)))
    with pytest.raises(DataError, match="query 1 has 0 gaps"):
        plain.encode(["It was [MASK].", "It was good."])


@pytest.mark.parametrize("offset", [0, 1, -1])
def test_the_gap_is_found_behind_entries(offset: int) -> None:
    _, graph = reader("bert")
    align = gp.Verbalizer({"good": "good", "bad": "bad"}, position="mask")
    prompt = gp.Concatenative(at="tokens", length=3, offset=offset, init="vocabulary")
    ended = dataclasses.replace(prompt, until="logits")
    ids = torch.tensor([[1, 9, opened("bert", "[MASK]")[-1], 2]])
    found, expected = (
        gp.compile(graph, gp.Program([part], align=align))(ids, torch.ones_like(ids))
        for part in (prompt, ended)
    )
    torch.testing.assert_close(found, expected)


def test_label_rows_of_a_learned_head_are_trained() -> None:
    _, graph = reader("gpt2")
    program = gp.Program([ASKED, gp.TrainableLayer(at="lm_head:out")], align=gp.Verbalizer(GOOD))
    task = gp.compile(graph, program)
    task(**task.encode(QUERIES)).sum().backward()
    grads = [parameter.grad for parameter in task.program.parameters()]
    assert any(grad is not None and bool(grad.abs().sum() > 0) for grad in grads)


def scores_eagerly(model: nn.Module, name: str, query: str, answers: list[str]) -> Tensor:
    """Sum of the log-probabilities of the tokens of answers, one text at a time."""
    found = []
    for answer in answers:
        own, ids = opened(name, query), opened(name, query + answer)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(1)
        assert ids[: len(own)] == own
        found.append(sum(logits[place - 1, ids[place]] for place in range(len(own), len(ids))))
    return torch.stack(found)  # type: ignore[arg-type]


ANSWERS = {"good": " very good", "bad": " bad, in that it is long", "so": " great"}


@pytest.mark.parametrize("name", CAUSAL)
def test_whole_answers_are_scored_behind_remembered_demonstrations(name: str) -> None:
    model, graph = reader(name)
    task = gp.compile(graph, gp.Program([SHOWN], align=gp.Score(ANSWERS)))
    found = task.score(QUERIES)
    assert found.shape == (3, 3)
    prefix = SHOWN.fixed().prefix
    for query, row in zip(QUERIES, found, strict=True):
        text = prefix + TEMPLATE.query({"text": query})
        assert (row - scores_eagerly(model, name, text, list(ANSWERS.values()))).abs().max() < 1e-4
    assert task.spec.contract.labels == ("good", "bad", "so")


def test_scores_are_normalized_as_said() -> None:
    model, graph = reader("gpt2")
    answers = list(ANSWERS.values())

    def scored(by: Any) -> Tensor:
        program = gp.Program([ASKED], align=gp.Score(ANSWERS, by=by))
        return gp.compile(graph, program).score(QUERIES)

    total = scored("sum")
    start = len(opened("gpt2", "Sentiment:"))
    lengths = torch.tensor([len(opened("gpt2", f"Sentiment:{text}")) - start for text in answers])
    assert torch.allclose(scored("token"), total / lengths)
    sizes = torch.tensor([len(text.encode()) for text in answers])
    assert torch.allclose(scored("byte"), total / sizes)
    prior = scores_eagerly(model, "gpt2", TEMPLATE.query({"text": "N/A"}), answers)
    assert torch.allclose(scored("prior"), total - prior, atol=1e-4)


@pytest.mark.slow
def test_the_graph_of_a_score_is_exported(tmp_path: Path) -> None:
    _, graph = reader("gpt2")
    task = gp.compile(graph, gp.Program([SHOWN], align=gp.Score(ANSWERS)))
    given = tuple(task.encode(QUERIES).values())
    assert gp.backends.onnx.export(task, tmp_path / "score.onnx", inputs=given).passed


def test_parsers_leave_the_graph_and_travel_with_the_program(tmp_path: Path) -> None:
    _, graph = reader("gpt2")
    parse = gp.Parse(r"answer is (-?\d+)", pick="last", type=int)
    task = gp.compile(graph, gp.Program([SHOWN], align=parse))
    assert task.alignment is None
    gp.save(task, tmp_path / "task.safetensors")
    again = gp.load(tmp_path / "task.safetensors", graph)
    assert isinstance(again.spec.align, gp.text.AnswerParser)
    assert again.spec.align("3 and 4 is 7, so the answer is 7") == 7
    for parser in (gp.Parse.number(), gp.Parse.json({"type": "object"})):
        program = gp.Program([SHOWN], align=parser)
        assert parse_spec(format_spec(program)) == program
        assert gp.compile(graph, program).spec.align == parser


@pytest.mark.parametrize(
    "align",
    [
        gp.LastToken(),
        gp.Slice({1: (0, 10), 2: (-4, None)}),
        gp.Verbalizer({"a": (" x", " y"), "b": " z"}, of_words="sum", content_free="N/A"),
        gp.Verbalizer([" x", " z"], position="mask", of_tokens="max"),
        gp.Score(ANSWERS, by="prior"),
        gp.text.Parse("a"),
    ],
    ids=lambda align: align.kind,
)
def test_specs_survive_text_and_json(align: Any) -> None:
    assert parse_spec(format_spec(align)) == align
    assert from_json(json.loads(json.dumps(to_json(align, {}))), {}) == align


def test_ranges_of_outputs_are_cut(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 2, 3, padding=1))
    graph = gp.capture(model.eval(), (torch.rand(2, 3, 8, 8),))
    name = graph.outputs[0]
    align = gp.Slice({2: (4, 8), 3: (-4, None)}, at=f"output:{name}")
    task = gp.compile(graph, gp.Program(align=align))
    image = torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(task(image), model(image)[:, :, 4:, 4:])
    assert gp.backends.onnx.export(task, tmp_path / "slice.onnx").passed
    for ranges, message in (
        ({2: (4, 9)}, "no entries 4:9"),
        ({2: (4, 4)}, "no entries 4:4"),
        ({4: (0, 1)}, "axis 4"),
    ):
        align = gp.Slice(ranges, at=f"output:{name}")  # type: ignore[arg-type]
        with pytest.raises(ProgramError, match=message):
            gp.compile(graph, gp.Program(align=align))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gp.Verbalizer("good"), "must map labels to words"),
        (lambda: gp.Verbalizer({"a": " x"}), "at least two labels"),
        (lambda: gp.Verbalizer({"a": " x", "b": [" y", " x"]}), "already a word of 'a'"),
        (lambda: gp.Verbalizer({"a": " x", "b": []}), "no words for 'b'"),
        (lambda: gp.Verbalizer({"a": " x", "b": " "}), "not a word"),
        (lambda: gp.Verbalizer({"a": 3, "b": " y"}), "no words for 'a'"),
        (lambda: gp.Verbalizer(GOOD, position="end"), "position must be one"),  # type: ignore[arg-type]
        (lambda: gp.Score({"a": [" x", " y"], "b": " z"}), "several answers"),
        (lambda: gp.Slice({}), "at least one axis"),
        (lambda: gp.Slice({0: (1, 2)}), "an axis must be an integer of at least 1"),
        (lambda: gp.Slice([(1, 2)]), "must be axis, start and stop"),  # type: ignore[list-item]
    ],
)
def test_fields_are_checked(make: Any, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        make()


def test_words_that_do_not_suit_text_or_tokenizer_are_refused() -> None:
    _, graph = reader("gpt2")
    alike = gp.Verbalizer({"a": " goodly", "b": " goods"})
    with pytest.raises(ProgramError, match="words of the same tokens"):
        gp.compile(graph, gp.Program([ASKED], align=alike))
    bare = gp.Demonstrations(
        [{"text": one["text"], "label": " " + one["label"]} for one in REVIEWS],
        gp.Template("{text} ->{label}"),
    )
    with pytest.raises(ProgramError, match="begin their answers with a space, 'good' does not"):
        gp.compile(graph, gp.Program([bare], align=gp.Verbalizer({"a": "good", "b": "bad"})))
    steps = gp.Demonstrations([], gp.Template("{q} {steps} So {label}.", answer="steps"))
    with pytest.raises(ProgramError, match="asks for 'steps' before the label"):
        gp.compile(graph, gp.Program([steps], align=gp.Verbalizer(GOOD)))
    none = dataclasses.replace(graph, tokenizer=None)
    with pytest.raises(ProgramError, match="verbalizer needs a tokenizer"):
        gp.compile(none, gp.Program(align=gp.Verbalizer(GOOD)))
    with pytest.raises(ProgramError, match="scores no answers"):
        gp.compile(graph, gp.Program()).score(["a"])
    _, labels = reader("gpt2", head="labels")
    with pytest.raises(ProgramError, match="batch, tokens, features"):
        gp.compile(labels, gp.Program(align=gp.LastToken()))
