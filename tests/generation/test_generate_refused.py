"""What generation refuses: options, prompts and memories that do not suit, each by its name."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

import graphprog as gp
from graphprog.backends import onnxruntime
from graphprog.backends.onnx import export_decoder
from graphprog.errors import BackendError, DataError, FileError, PassError, ProgramError
from tests.models import decoder_models as models
from tests.models.decoder_models import Decoder, captured

_INPUTS = ("input_ids", "attention_mask")


@functools.cache
def _cached(name: str) -> gp.generation.CachedDecoder:
    return gp.with_kv_cache(models.decoder(name)[1])


def _prompts() -> list[list[int]]:
    return [models.ids_of(1, length, 7)[0].tolist() for length in (5, 9, 5)]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"temperature": 0.0}, "temperature=0.0 is not above 0"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"top_k": 0}, "top_k=0"),
        ({"max_new_tokens": 0}, "max_new_tokens=0 is less than 1"),
        ({"num_beams": 2, "seed": 0}, "a beam search does not sample"),
        ({"num_beams": 2, "streamer": print}, "only at the end"),
        ({"num_return_sequences": 3}, "3 samples of the best token are all the same"),
        ({"stop": ["x"]}, "stop strings need a tokenizer"),
        ({"stop": "ab"}, "stop='ab' is not a sequence of strings"),
        ({"stop": [""]}, "is not a sequence of strings"),
        ({"ends": 2}, "ends=2 is not a sequence of ids"),
        ({"max_new_tokens": 2.5}, "max_new_tokens=2.5 is not an integer"),
        ({"length_penalty": float("nan")}, "length_penalty=nan is not a finite number"),
        ({"top_k": 1.5}, "top_k=1.5 is not an integer"),
        ({"seed": 0.5}, "seed=0.5 is not an integer"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], told: str) -> None:
    """Each by its name."""
    with pytest.raises(ProgramError, match=told):
        gp.generate(_cached("llama"), _prompts(), **options)


def test_prompts_that_do_not_suit_are_refused(tmp_path: Path) -> None:
    """What is wrong with them is said, and which."""
    cached = _cached("llama")
    cases: list[tuple[Any, str]] = [
        ("a text", "prompts must be a list of texts"),
        ([], "there are no prompts"),
        ([[3, 4], []], "prompt 1 has no tokens"),
        ([[3, 97]], "prompt 0: token 97 is not in the vocabulary of"),
        ([3, 4], "prompt 0 is neither a text nor a sequence of token ids: 3"),
        ([[3], [1.5]], "prompt 1 is neither"),
        ({"input_ids": [[3]], "attention_mask": [[1]]}, "'input_ids' is not a tensor"),
        (dict.fromkeys(_INPUTS, torch.ones(2, 0).long()), "input_ids has no tokens"),
        ({"input_ids": torch.ones(2, 3).long()}, "the graph takes input_ids.*attention_mask"),
    ]
    for prompts, told in cases:
        with pytest.raises(DataError, match=told):
            gp.generate(cached, prompts)
    with pytest.raises(ProgramError, match="prompts that are texts need a tokenizer"):
        gp.generate(cached, ["a text"])
    for name, meaning in (("attention_mask", "absent"), ("input_ids", "present")):
        with pytest.raises(DataError, match=f"{name}' cannot be '{meaning}'.*attention_mask"):
            gp.generate(cached, _prompts(), input_roles={name: meaning})
    with pytest.raises(DataError, match="cannot run on input_ids"):
        gp.generate(_cached("gpt2"), [_prompts()[0]], max_new_tokens=200, ends=[])
    labeled = gp.compile(models.decoder("gpt2")[1], gp.Program(align=gp.LastToken()))
    with pytest.raises((PassError, ProgramError)):
        gp.generate(labeled, _prompts())
    with pytest.raises(FileError, match="no such file"):
        onnxruntime.Decoder(tmp_path / "none.onnx")
    gp.backends.onnx.export(
        gp.compile(models.decoder("gpt2")[1], gp.Program()), tmp_path / "a.onnx"
    )
    with pytest.raises(FileError, match="does not write token after token"):
        onnxruntime.Decoder(tmp_path / "a.onnx")


def test_nothing_is_generated_after_padding() -> None:
    """The last logits of such a row would be those of a token that is not there."""
    ids = models.ids_of(2, 6)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    with pytest.raises(DataError, match="row 1 ends with a token that attention_mask masks"):
        gp.generate(_cached("llama"), {"input_ids": ids, "attention_mask": mask})
    (alone,) = gp.generate(_cached("llama"), [ids[1, :4].tolist()], max_new_tokens=6, ends=[])
    in_front = {"input_ids": ids[1:].roll(2, 1), "attention_mask": mask[1:].roll(2, 1)}
    (padded,) = gp.generate(_cached("llama"), in_front, max_new_tokens=6, ends=[])
    assert padded.ids == alone.ids


def test_a_cache_of_something_else_is_refused() -> None:
    """Of other rows, of as many tokens as there are; and inputs that are not all given."""
    cached = _cached("llama")
    ids = models.ids_of(2, 6)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    _, cache = cached.advance(inputs)
    with pytest.raises(DataError, match="the cache has 6 tokens, but input_ids only 6"):
        cached.advance(inputs, cache)
    fewer = {name: value[:1] for name, value in inputs.items()}
    with pytest.raises(DataError, match="the cache has 2 rows, but input_ids has 1"):
        cached.advance(fewer, cache)
    with pytest.raises(DataError, match="also takes attention_mask"):
        cached.advance({"input_ids": ids})


def test_what_onnx_runtime_does_not_compute_is_told_first(tmp_path: Path) -> None:
    """A model in bfloat16 has a cache, and is written in another type."""
    torch.manual_seed(0)
    graph = captured(Decoder().to(torch.bfloat16))
    with pytest.raises(BackendError, match="computes in bfloat16"):
        export_decoder(graph, tmp_path / "writer.onnx")
    assert not list(tmp_path.iterdir())
