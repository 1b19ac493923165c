"""Models of transformers by folder: class, weights, tokenizer, preprocessing, example inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

import graphprog as gp
from graphprog.errors import CaptureError, FileError
from graphprog.sources.open_source import open_source
from graphprog.sources.preprocessing import hints_of
from graphprog.sources.source import Source
from graphprog.sources.transformers_inputs import example_call
from tests.models.library_models import clip, wav2vec

TEXT = {
    "vocab_size": 12,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
VISION = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 8,
}


def words() -> Any:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad"]
    table = models.WordLevel({name: number for number, name in enumerate(names)}, "[UNK]")
    made = Tokenizer(table)
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]"
    )


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("hf") / "a small bert"
    config = transformers.BertConfig(**TEXT, id2label={0: "bad", 1: "so", 2: "good"})
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    words().save_pretrained(folder)
    return folder, model


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hf") / "vit"
    transformers.ViTForImageClassification(transformers.ViTConfig(**VISION)).save_pretrained(folder)
    size = {"height": 16, "width": 16}
    processor = transformers.ViTImageProcessor(size=size, image_mean=[0.4] * 3, image_std=[0.3] * 3)
    processor.save_pretrained(folder)
    return folder


def test_a_text_model_is_captured_by_its_folder(bert: tuple[Path, Any]) -> None:
    folder, model = bert
    graph = gp.capture(f"hf:{folder}")
    ids, mask = torch.randint(4, 12, (3, 7)), torch.ones(3, 7, dtype=torch.int64)
    found = graph(input_ids=ids, attention_mask=mask)["logits"]
    assert torch.allclose(found, model(ids, mask).logits, atol=1e-6)
    assert graph.hints == {"labels": ("bad", "so", "good"), "tokenizer": str(folder)}
    assert graph.tokenizer("good bad")["input_ids"] == [4, 5]


def test_the_normalization_is_that_of_the_processor(vit: Path) -> None:
    source = open_source(f"hf:{vit}")
    assert source.kwargs["pixel_values"].shape == (2, 3, 16, 16)
    assert source.hints == {"mean": (0.4,) * 3, "std": (0.3,) * 3}
    _same_as_library(source.processor, source.hints)


@pytest.mark.parametrize("options", [{"do_normalize": False}, {"rescale_factor": 1 / 127.5}])
def test_other_scales_become_units_of_one(options: dict[str, Any]) -> None:
    size = {"height": 16, "width": 16}
    processor = transformers.ViTImageProcessor(size=size, **options)
    _same_as_library(processor, hints_of(processor, None))


def _same_as_library(processor: Any, hints: Any) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    expected = processor(image, return_tensors="pt")["pixel_values"][0]
    unit = torch.tensor(image).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(hints[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
    assert torch.allclose((unit - mean) / std, expected, atol=1e-5)


def test_a_class_can_be_chosen(bert: tuple[Path, Any]) -> None:
    folder, model = bert
    source = open_source(f"hf:{folder}#class=AutoModel,dtype=float64")
    assert type(source.model) is transformers.BertModel
    assert source.model.dtype == torch.float64
    weight = source.model.embeddings.word_embeddings.weight
    assert torch.equal(weight.float(), model.bert.embeddings.word_embeddings.weight)
    assert type(open_source(f"hf:{folder}#random").model) is type(model)


def test_weights_that_would_be_random_are_refused(bert: tuple[Path, Any]) -> None:
    with pytest.raises(CaptureError, match="weights of BertForMaskedLM, such as cls") as no:
        gp.capture(f"hf:{bert[0]}#class=BertForMaskedLM")
    assert no.value.remedies == ("#class=BertForSequenceClassification",)


def test_a_wrong_place_or_class_is_refused(bert: tuple[Path, Any], tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"no model BertForTalk; did you mean BertFor"):
        gp.capture(f"hf:{bert[0]}#class=BertForTalk")
    with pytest.raises(FileError, match="/nowhere/at/all: no such folder"):
        gp.capture("hf:/nowhere/at/all")
    with pytest.raises(CaptureError, match="hf cannot load it"):
        gp.capture(f"hf:{tmp_path}")


def test_code_of_a_repository_is_not_run(tmp_path: Path) -> None:
    code = {"AutoConfig": "code.Config", "AutoModel": "code.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": code}))
    (tmp_path / "code.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(CaptureError, match="hf cannot load it"):
        gp.capture(f"hf:{tmp_path}")


def whisper() -> Any:
    config = transformers.WhisperConfig(
        vocab_size=100, num_mel_bins=8, d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, max_source_positions=12,
        encoder_ffn_dim=16, decoder_ffn_dim=16, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    return transformers.WhisperForConditionalGeneration(config)


def t5() -> Any:
    config = transformers.T5Config(vocab_size=100, d_model=16, d_kv=8, d_ff=16, num_layers=1)
    return transformers.T5ForConditionalGeneration(config)


def spectrogram() -> Any:
    config = transformers.ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_length=32, num_mel_bins=16,
    )  # fmt: skip
    return transformers.ASTForAudioClassification(config)


def video() -> Any:
    config = transformers.VideoMAEConfig(**VISION, num_frames=4, tubelet_size=2)
    return transformers.VideoMAEForVideoClassification(config)


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (clip, ["attention_mask", "input_ids", "pixel_values"]),
        (t5, ["attention_mask", "decoder_input_ids", "input_ids", "use_cache"]),
        (whisper, ["decoder_input_ids", "input_features", "use_cache"]),
        (wav2vec, ["input_values"]),
        (spectrogram, ["input_values"]),
        (video, ["pixel_values"]),
    ],
)
def test_the_example_is_a_call_of_the_model(make: Any, inputs: list[str]) -> None:
    model = make().eval()
    call, axes = example_call(model, None)
    assert sorted(call) == inputs
    assert set(axes) == {name for name in inputs if name != "use_cache"}
    with torch.no_grad():
        model(**call)


def test_audio_has_the_rate_of_its_extractor() -> None:
    extractor = transformers.WhisperFeatureExtractor(feature_size=8, sampling_rate=8000)
    assert hints_of(extractor, None) == {"sample_rate": 8000}
    call, _ = example_call(whisper(), extractor)
    assert call["input_features"].shape[:2] == (2, 8)
    source = Source(whisper(), hints=hints_of(extractor, None))
    assert source.hints["sample_rate"] == 8000
