"""Generation: what is written is what a model's own library writes, whatever runs it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import graphprog as gp
from graphprog.backends.onnx import export_decoder
from graphprog.backends.onnxruntime import Decoder
from graphprog.errors import ProgramError
from graphprog.generation.batching import pads_exactly, rows_of
from graphprog.generation.beam_search import Beam
from tests.models import decoder_models as models
from tests.models import text_models
from tests.models.decoder_models import END

LENGTH = 24


@functools.cache
def _cached(name: str) -> gp.generation.CachedDecoder:
    return gp.with_kv_cache(models.decoder(name)[1])


def _prompts() -> list[list[int]]:
    return [models.ids_of(1, length, 7)[0].tolist() for length in (5, 9, 5)]


def _reference(model: Any, prompt: Sequence[int], **options: Any) -> list[int]:
    """What transformers' own generation writes, without the token that ends it."""
    ids = torch.tensor([list(prompt)])
    found = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=LENGTH,
        do_sample=False,
        eos_token_id=END,
        pad_token_id=0,
        **options,
    )
    written: list[int] = found[0, len(prompt) :].tolist()
    return written[: written.index(END)] if END in written else written


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_best_tokens_are_those_of_the_library(name: str) -> None:
    """Prompts of different lengths in one call, each as if it were alone."""
    model, _ = models.decoder(name)
    found = gp.generate(_cached(name), _prompts(), max_new_tokens=LENGTH, ends=[END])
    for prompt, text in zip(_prompts(), found, strict=True):
        assert list(text.ids) == _reference(model, prompt)
        assert text.ended == ("length" if len(text.ids) == LENGTH else "end")


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_beams_find_what_the_library_finds(penalty: float) -> None:
    """Also where texts end early, and short ones are preferred or not."""
    model, _ = models.decoder("llama")
    found = gp.generate(
        _cached("llama"),
        _prompts(),
        max_new_tokens=LENGTH,
        ends=[END],
        num_beams=4,
        length_penalty=penalty,
    )
    options = {"num_beams": 4, "length_penalty": penalty}
    wanted = [_reference(model, prompt, **options) for prompt in _prompts()]
    assert [list(text.ids) for text in found] == wanted
    assert penalty > 1 or any(text.ended == "end" for text in found)


def test_beams_stay_wide_where_many_tokens_end_a_text() -> None:
    """More of the likeliest than twice the width may end it: others take their places."""
    beam = Beam(2, 1.0, lambda ids: ids[-1] in (1, 2, 3, 4))
    shares = torch.tensor([[9.0, 8.0, 7.0, 6.0, 5.0, 3.0, 4.0]]).log_softmax(-1)
    assert beam.step(shares) == ([0, 0], [0, 6])
    assert [ids for _, ids, _ in beam.finished] == [(1,)]


def test_the_log_probability_is_that_of_the_tokens() -> None:
    """Read again as one text, the tokens have it together, the one that ends it included."""
    model, _ = models.decoder("gpt2")
    for text, prompt in zip(
        gp.generate(_cached("gpt2"), _prompts(), max_new_tokens=6, ends=[]), _prompts(), strict=True
    ):
        ids = torch.tensor([[*prompt, *text.ids]])
        shares = model(ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
        total = shares.gather(1, torch.tensor(text.ids)[:, None]).sum()
        assert text.log_probability == pytest.approx(float(total), abs=1e-3)


def test_padding_in_front_is_tried_and_else_left_alone() -> None:
    """Rotary positions stand padding; learned ones count it, and so lengths are run apart."""
    for name, exact in (("llama", True), ("gpt2", False)):
        cached = _cached(name)
        rows = rows_of(_prompts(), cached.roles, cached.prompt_format)
        assert pads_exactly(cached, rows) is exact


def test_a_row_is_drawn_alike_in_any_batch() -> None:
    """By the seed and its number, not by what is beside it."""
    options: dict[str, Any] = {
        "max_new_tokens": 8,
        "temperature": 1.3,
        "top_k": 30,
        "top_p": 0.9,
        "seed": 5,
    }
    together = gp.generate(_cached("llama"), _prompts(), ends=[], **options)
    alone = gp.generate(_cached("llama"), _prompts()[:1], ends=[], **options)
    assert together[0].ids == alone[0].ids
    other = gp.generate(_cached("llama"), _prompts()[:1], ends=[], **{**options, "seed": 6})
    assert other[0].ids != alone[0].ids


def test_draws_have_the_shares_of_the_model() -> None:
    """Of many draws, tokens come as often as softmax(logits / temperature) says, cut at top_k."""
    model, _ = models.decoder("gpt2")
    prompt = _prompts()[0]
    found = gp.generate(
        _cached("gpt2"),
        [prompt],
        max_new_tokens=1,
        temperature=2.0,
        top_k=5,
        seed=0,
        num_return_sequences=3000,
        ends=[],
    )
    assert [text.prompt for text in found] == [0] * 3000
    scores = model(torch.tensor([prompt])).logits[0, -1] / 2.0
    best = scores.topk(5)
    shares = best.values.softmax(0)
    counts = torch.bincount(torch.tensor([text.ids[0] for text in found]), minlength=97)
    assert set(counts.nonzero().flatten().tolist()) <= set(best.indices.tolist())
    assert torch.allclose(counts[best.indices] / 3000, shares, atol=0.03)


def test_without_a_cache_the_same_is_written() -> None:
    """Every token read again for each new one."""
    _, graph = models.decoder("llama")
    with_cache = gp.generate(_cached("llama"), _prompts()[:2], max_new_tokens=8, ends=[])
    without = gp.generate(graph, _prompts()[:2], max_new_tokens=8, ends=[], use_cache=False)
    assert [text.ids for text in with_cache] == [text.ids for text in without]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t5", "whisper"])
def test_an_encoder_with_a_decoder_writes(name: str, tmp_path: Path) -> None:
    """From tensors by name; the encoder runs once, in PyTorch and in ONNX Runtime."""
    _, graph = models.two_towers(name)
    call = models.towers_call(name, 2, 7, 1)
    kept = gp.generate(graph, call, max_new_tokens=LENGTH, ends=[END])
    plain = gp.generate(graph, call, max_new_tokens=LENGTH, ends=[END], use_cache=False)
    assert [text.ids for text in kept] == [text.ids for text in plain]
    report = export_decoder(graph, tmp_path / "writer.onnx")
    assert report.passed
    assert (tmp_path / "writer.prefill.onnx").is_file()
    found = gp.generate(Decoder(tmp_path / "writer.onnx"), call, max_new_tokens=LENGTH, ends=[END])
    assert [text.ids for text in found] == [text.ids for text in kept]


_QUERIES = [{"text": "a cold end"}, {"text": "great"}, {"text": "it was very very bad"}]


@functools.cache
def _task() -> gp.ReprogrammedModel:
    _, graph = text_models.reader("llama")
    shown = gp.Demonstrations(text_models.REVIEWS, text_models.TEMPLATE)
    return gp.compile(graph, gp.Program([shown], align=gp.Parse(r"(\d)", type=int)))


def test_texts_are_streamed_stopped_and_read() -> None:
    """What is told, joined, is the text; a stop string ends it and is not in it."""
    _, graph = text_models.reader("gpt2")
    cached, told = gp.with_kv_cache(graph), list[gp.generation.GeneratedToken]()
    (free,) = gp.generate(cached, ["Review: a"], max_new_tokens=16, streamer=told.append, ends=[])
    assert free.text == text_models.tokenizer("gpt2").decode(free.ids)
    assert "".join(token.text for token in told) == free.text
    assert [token.id for token in told] == list(free.ids)
    word = free.text[4:7]
    told.clear()
    (cut,) = gp.generate(
        cached, ["Review: a"], max_new_tokens=16, stop=[word], streamer=told.append, ends=[]
    )
    assert cut.text == free.text[: free.text.index(word)]
    assert cut.ended == "stop"
    assert "".join(token.text for token in told) == cut.text
    (read,) = gp.generate(cached, ["Review: a"], max_new_tokens=4, ends=[], parse=str.upper)
    assert read.answer == read.text.upper()


def test_a_program_of_text_is_put_around_prompts() -> None:
    """TextPrefix demonstrations, the query alone in the graph: as the whole text in the source."""
    task = _task()
    found = gp.generate(task, _QUERIES, max_new_tokens=12)
    assert task.prompt is not None
    whole = [task.prompt.tokens.opened(text) for text in task.prompt.texts(_QUERIES)]
    wanted = gp.generate(task.base, whole, max_new_tokens=12)
    assert [text.ids for text in found] == [text.ids for text in wanted]
    assert all(isinstance(text.answer, int | gp.text.Unparsed) for text in found)


def test_chains_of_thought_are_drawn_and_vote() -> None:
    """As many votes as samples, the same ones for the same seed; and stages that ask again."""
    cached = gp.with_kv_cache(_task())
    votes = gp.generation.self_consistent(
        cached, _QUERIES, num_return_sequences=6, max_new_tokens=10, parse=lambda text: text[:1]
    )
    assert [sum(count for _, count in vote.counts) for vote in votes] == [6, 6, 6]
    drawn = gp.generate(
        cached, _QUERIES, num_return_sequences=6, max_new_tokens=10, temperature=0.7, seed=0
    )
    assert votes[1] == gp.text.vote([text.text[:1] for text in drawn[6:12]])
    _, graph = text_models.reader("gpt2")
    with pytest.raises(ProgramError, match="there is no parser"):
        gp.generation.self_consistent(graph, ["Review: a"], num_return_sequences=2)
    ask = gp.generation.as_callable(graph, max_new_tokens=5, ends=[])
    trigger = gp.text.ZeroShotCoT("Say which it is.", "So it is")
    reasoned = trigger.run("a dull film", ask)
    first = gp.generate(graph, [trigger.first("a dull film")], max_new_tokens=5, ends=[])
    assert reasoned.reasoning == first[0].text
    assert reasoned.answer == ask(trigger.second("a dull film", reasoned.reasoning))


def test_onnx_runtime_writes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedy, in beams and drawn, from texts around which the program's words are put."""
    path = tmp_path / "writer.onnx"
    monkeypatch.setattr(
        "graphprog.backends.onnx_model.external_data.MAX_BYTES", 2000
    )  # as of a large model
    report = export_decoder(_task(), path)
    assert report.max_relative < 1e-5
    assert [file.suffix for file in sorted(tmp_path.iterdir())] == [".data", ".onnx"]
    writer = Decoder(path, text_models.tokenizer("llama"))
    cases: list[dict[str, Any]] = [{}, {"num_beams": 3}, {"seed": 3, "num_return_sequences": 2}]
    for options in cases:
        wanted = gp.generate(_task(), _QUERIES, max_new_tokens=12, **options)
        found = gp.generate(writer, _QUERIES, max_new_tokens=12, **options)
        assert [text.text for text in found] == [text.text for text in wanted]
        assert [str(text.answer) for text in found] == [str(text.answer) for text in wanted]


@pytest.mark.slow
def test_int8_is_reported_and_smaller(tmp_path: Path) -> None:
    """The weights of linear layers have a byte each; how far off it is, is told."""
    _, graph = models.decoder("gpt2")
    export_decoder(graph, tmp_path / "plain.onnx")
    report = export_decoder(graph, tmp_path / "small.onnx", precision="int8")
    assert report.passed
    assert 1e-6 < report.max_relative < 0.5
    assert (tmp_path / "small.onnx").stat().st_size < (tmp_path / "plain.onnx").stat().st_size
    written = gp.generate(Decoder(tmp_path / "small.onnx"), _prompts(), max_new_tokens=4)
    assert all(len(text.ids) <= 4 for text in written)
