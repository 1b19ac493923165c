"""Entries inserted into models of libraries, against the models given a longer sequence."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.errors import PassError
from graphprog.ir.graph import Graph
from tests.models import zoo
from tests.models.library_models import wav2vec
from tests.models.prompts.inserted import entries, inserted, part, told
from tests.support.oracle import changed

pytestmark = pytest.mark.xdist_group("extend-models")


def audio() -> nn.Module:
    from transformers import ASTConfig, ASTModel

    return ASTModel(
        ASTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            patch_size=8,
            frequency_stride=8,
            time_stride=8,
            max_length=32,
            num_mel_bins=16,
        )
    )


def translator() -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=100, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2,
            decoder_start_token_id=0,
        )
    )  # fmt: skip


def whisper() -> nn.Module:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    return WhisperEncoder(
        WhisperConfig(
            d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64,
            num_mel_bins=8, max_source_positions=12,
        )
    )  # fmt: skip


def translation(batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    _, call = zoo.tokens(6)(batch)
    generator = torch.Generator().manual_seed(batch)
    call["decoder_input_ids"] = torch.randint(1, 90, (batch, 4), generator=generator)
    return (), {**call, "use_cache": False}


BOTH = {0: "batch", 1: "length"}

CASES = {
    **zoo.LIBRARIES,
    "ast": zoo.Case(audio, zoo.vectors(32, 16)),
    "t5": zoo.Case(
        translator,
        translation,
        {**zoo.SEQUENCES, "decoder_input_ids": {0: "batch", 1: "decoded"}},
    ),
    "whisper": zoo.Case(whisper, zoo.vectors(8, 24)),
    "wav2vec2": zoo.Case(wav2vec, zoo.vectors(200), {"input_values": BOTH}),
}


@cache
def captured(name: str, varying: bool = True) -> tuple[nn.Module, Graph]:
    case = CASES[name]
    model = case.model()
    args, kwargs = case.call(2)
    return model, gp.capture(model, args, kwargs, case.axes if varying else None)


def first(result: Any) -> Tensor:
    """Logits, or whatever comes first."""
    if isinstance(result, Tensor):
        return result
    return result[0] if isinstance(result, tuple) else next(iter(result.values()))


def close(found: Any, want: Any) -> None:
    torch.testing.assert_close(first(found), first(want), rtol=1e-5, atol=1e-6)


VISION = {
    "timm-vit": ["embedding", "hidden[0]", "hidden[1]"],
    "torchvision-vit": ["embedding", "hidden[0]", "hidden[1]"],
    "vit": ["embedding", "hidden[0]", "hidden[1]"],
    "ast": ["embedding", "hidden[0]"],
    "whisper": ["embedding", "hidden[0]"],
    "wav2vec2": ["feature_projection:out[0]", "embedding", "hidden[0]"],
}
SLOW = {"timm-vit", "ast", "whisper", "wav2vec2"}


@pytest.mark.parametrize(
    ("name", "at"),
    [
        pytest.param(name, at, marks=[pytest.mark.slow] * (name in SLOW or at == "hidden[0]"))
        for name, places in VISION.items()
        for at in places
    ],
)
def test_models_without_masks_equal_themselves_with_a_hook(name: str, at: str) -> None:
    model, graph = captured(name)
    place = graph.interfaces().resolve(at)
    width = graph.nodes[place.node].meta["val"].shape[-1]
    for offset in (1, -1):
        new = entries(3, width)
        task = gp.compile(graph, gp.Program([part(at, new, offset)]))
        for batch in (2, 3):
            args, kwargs = CASES[name].call(batch)
            key = place.key
            if ":in" in key:  # tracing hands a mask on that eager does not make
                key = key.removesuffix("[0]")
            want = changed(model, {key: inserted(new, offset)}, args, kwargs)
            close(task(*args, **kwargs), want)


def longer_mask(mask: Tensor, count: int, offset: int) -> Tensor:
    at = mask.shape[1] if offset == -1 else offset
    return torch.cat([mask[:, :at], mask.new_ones(len(mask), count), mask[:, at:]], 1)


TEXT = {
    "gpt2": "transformer.wte",
    "llama": "model.embed_tokens",
    "bert": "bert.embeddings.word_embeddings",
}


@pytest.mark.parametrize("varying", [False, True], ids=["fixed", "varying"])
@pytest.mark.parametrize("offset", [0, 1, 3, -1])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "gpt2")) for name in TEXT]
)
def test_text_models_equal_themselves_from_embeddings(name, offset: int, varying: bool) -> None:
    model, graph = captured(name, varying)
    table = model.get_submodule(TEXT[name])
    new = entries(3, 32)
    task = gp.compile(graph, gp.Program([part("tokens", new, offset)]))
    for batch, length in ((2, 6), (3, 9 if varying else 6)):
        _, call = zoo.tokens(length)(batch)
        want = model(
            inputs_embeds=inserted(new, offset)(table(call["input_ids"])),
            attention_mask=longer_mask(call["attention_mask"], 3, offset),
            **({} if name == "bert" else {"use_cache": False}),
        )
        keywords = {} if name == "bert" else {"use_cache": False}
        close(task(**call, **keywords), want)


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0, 2])
def test_the_decoder_sees_what_was_inserted_for_the_encoder(offset: int) -> None:
    model, graph = captured("t5")
    new = entries(3, 32)
    task = gp.compile(graph, gp.Program([part("encoder.embed_tokens:out", new, offset)]))
    for batch in (2, 3):
        _, call = translation(batch)
        mask = longer_mask(call["attention_mask"], 3, offset)
        want = model(
            inputs_embeds=inserted(new, offset)(model.shared(call["input_ids"])),
            attention_mask=mask,
            decoder_input_ids=call["decoder_input_ids"],
            use_cache=False,
        )
        close(task(**call), want)


@pytest.mark.slow
@pytest.mark.parametrize("at", ["vision.embedding", "vision.hidden[0]"])
def test_one_tower_of_clip_leaves_the_other_alone(at: str) -> None:
    model, graph = captured("clip")
    try:
        place = graph.interfaces().resolve(at)
    except gp.errors.InterfaceError:
        pytest.skip(f"no {at}")
    new = entries(3, 32)
    task = gp.compile(graph, gp.Program([part(at, new, 1)]))
    for batch in (2, 3):
        _, call = zoo.pairs(batch)
        close(task(**call), changed(model, {place.key: inserted(new, 1)}, (), call))


@pytest.mark.slow
def test_inserted_words_of_clip_move_the_end_of_the_text() -> None:
    """Against the text tower written once more, from embeddings."""
    from transformers.models.clip.modeling_clip import CLIPModel

    model, graph = captured("clip")
    assert isinstance(model, CLIPModel)
    new, offset = entries(3, 32), 1
    at = "text_model.embeddings.token_embedding:out"
    task = gp.compile(graph, gp.Program([part(at, new, offset)]))
    _, call = zoo.pairs(3)
    text = model.text_model
    x = inserted(new, offset)(text.embeddings.token_embedding(call["input_ids"]))
    length = x.shape[1]
    x = x + text.embeddings.position_embedding.weight[:length]
    mask = torch.full((length, length), float("-inf")).triu(1)[None, None]
    padding = longer_mask(call["attention_mask"], 3, offset)[:, None, None, :]
    mask = mask.masked_fill(padding == 0, float("-inf"))
    for layer in text.encoder.layers:
        x = layer(x, attention_mask=mask)
        x = x if isinstance(x, Tensor) else x[0]
    x = text.final_layer_norm(x)[:, -1]  # the end of the text is the last of every row
    words = model.text_projection(x)
    words = words / words.norm(dim=-1, keepdim=True)
    pictures = model(**call).image_embeds
    want = words @ pictures.t() * model.logit_scale.exp()
    found = task(**call)
    found = found.logits_per_text if hasattr(found, "logits_per_text") else found["logits_per_text"]
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) for n in ("timm-swin", "timm-mixer")]
)
def test_windows_and_mixers_are_refused_inside_and_told_where(name: str) -> None:
    _, graph = captured(name)
    refused: list[str] = []
    for at in ("embedding", "hidden[0]", "hidden[1]"):
        try:
            gp.compile(graph, gp.Program([gp.Concatenative(at=at, length=3)]))
        except PassError as error:
            refused.append(told(error))
    assert refused
    for text in refused:
        assert "axis 1" in text
        assert "module" in text or "tensor" in text
