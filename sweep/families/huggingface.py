"""Families of transformers, from their default configurations, shrunk."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from sweep.examples import (
    Maker,
    axes_of,
    calling,
    floats,
    frames,
    ids,
    padded,
    parameters_of,
    required_of,
)
from sweep.exceptions import CONFIGS, INPUTS, SKIPPED
from sweep.family import Case, Family, settled
from sweep.shrink import VOCABULARY, shrunk

KINDS = {
    "TIME_SERIES_PREDICTION": "time series",
    "TIME_SERIES_CLASSIFICATION": "time series",
    "ZERO_SHOT_IMAGE_CLASSIFICATION": "two towers",
    "SPEECH_SEQ_2_SEQ": "audio encoder-decoder",
    "SEQ_TO_SEQ_CAUSAL_LM": "encoder-decoder",
    "AUDIO_CLASSIFICATION": "audio",
    "CTC": "audio",
    "VIDEO_CLASSIFICATION": "video",
    "IMAGE_CLASSIFICATION": "vision",
    "MASKED_LM": "encoder",
    "CAUSAL_LM": "decoder",
    "SEQUENCE_CLASSIFICATION": "encoder",
    "TOKEN_CLASSIFICATION": "encoder",
    "": "other",
}
"""Tasks in order of preference: a family is built for the first that it has."""


@functools.cache
def families() -> tuple[Family, ...]:
    """All of them; one for each folder of models."""
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    found: dict[str, Family] = {}
    for task, kind in KINDS.items():
        for model_type, class_name in _mapping(task).items():
            folder = model_type_to_module_name(model_type)
            if folder in found or folder in SKIPPED:
                continue
            if not task and (kind := OTHERS.get(folder, "")) == "":
                continue
            build = functools.partial(built, folder, model_type, _first(class_name))
            found[folder] = Family(f"transformers/{folder}", kind, build)
    return tuple(sorted(found.values(), key=lambda family: family.name))


_OTHERS = {
    "two towers": "aimv2 flava groupvit owlv2 owlvit x_clip",
    "time series": "autoformer informer time_series_transformer",
    "audio": "dac encodec mimi univnet vits xcodec",
    "decoder": "decision_transformer",
    "vision": (
        "dinov3_convnext dinov3_vit dpt glpn maskformer mlcd pixio pixtral radio swin2sr "
        "vit_mae vitdet yolos"
    ),
    "encoder": "dpr lxmert splinter vilt visual_bert",
}
OTHERS = {name: kind for kind, names in _OTHERS.items() for name in names.split()}
"""Families without one of the tasks above, and their kind."""


def _mapping(task: str) -> Mapping[str, Any]:
    from transformers.models.auto import modeling_auto

    name = f"MODEL_FOR_{task}_MAPPING_NAMES" if task else "MODEL_MAPPING_NAMES"
    mapping: Mapping[str, Any] = getattr(modeling_auto, name)
    if task != "MASKED_LM":
        return mapping
    # a classifier where there is one: it is what is reprogrammed most
    classifiers = modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    return {name: classifiers.get(name, mapping[name]) for name in mapping}


def _first(names: Any) -> str:
    return names if isinstance(names, str) else str(names[0])


def built(folder: str, model_type: str, class_name: str) -> Case:
    """The small model of a family."""
    import transformers

    config_class = transformers.CONFIG_MAPPING[model_type]
    config = shrunk(config_class, CONFIGS.get(folder))
    config._experts_implementation = "batched_mm"  # loops over experts cannot be traced
    torch.manual_seed(0)
    model_class = getattr(transformers, class_name)
    model = settled(model_class(config).float())
    makers = INPUTS.get(folder, _inputs)(model, config)
    constants = {
        name: value for name, value in {"use_cache": False}.items() if name in parameters_of(model)
    }
    axes = axes_of(makers)
    name = next((name for name in ("input_ids", "decoder_input_ids") if name in makers), "")
    return Case(model, calling(makers, constants), axes, name, _embedding(model, name), class_name)


def _embedding(model: nn.Module, name: str) -> nn.Module | None:
    if name != "input_ids" or "inputs_embeds" not in parameters_of(model):
        return None
    try:
        return model.get_input_embeddings()  # type: ignore[operator, no-any-return]
    except NotImplementedError:  # how a model says that it has none
        return None


def _inputs(model: nn.Module, config: Any) -> dict[str, Maker]:
    return dict(_pairs(model, config))


def _pairs(model: nn.Module, config: Any) -> Iterator[tuple[str, Maker]]:
    known = parameters_of(model)
    main = getattr(model, "main_input_name", "input_ids")
    vocabulary = getattr(config.get_text_config(), "vocab_size", VOCABULARY)
    if "input_ids" in known:
        yield "input_ids", ids(vocabulary)
        if "attention_mask" in known:
            yield "attention_mask", padded
    elif main in ("input_features", "input_values"):
        yield main, _sound(main, config)
    if "pixel_values" in known and ("input_ids" not in known or _sees(model)):
        vision = getattr(config, "vision_config", getattr(config, "image_config", config))
        yield "pixel_values", _pixels(vision, known)
    if "pixel_values_videos" in known and "pixel_values" not in known:
        yield "pixel_values_videos", _video(getattr(config, "vision_config", config))
    if "past_values" in known:
        yield "past_values", floats(config.context_length, _channels(config))
    if "decoder_input_ids" in known:
        yield "decoder_input_ids", ids(vocabulary)


def _sees(model: nn.Module) -> bool:
    """Whether a model that reads text cannot do without an image."""
    two_towers = hasattr(model, "logit_scale") or hasattr(model, "temperature")
    return two_towers or "pixel_values" in required_of(model)


def _channels(config: Any) -> int:
    return int(getattr(config, "num_input_channels", 1))


def _sound(main: str, config: Any) -> Maker:
    if hasattr(config, "conv_kernel") or main == "input_values":
        return lambda batch, length: floats(400 * length)(batch, length)
    parts = (config, getattr(config, "encoder_config", None), getattr(config, "audio_config", None))
    mels = next((part.num_mel_bins for part in parts if hasattr(part, "num_mel_bins")), 80)
    if hasattr(config, "feature_projection_input_dim"):
        return frames(config.feature_projection_input_dim, scale=4)
    if hasattr(config, "max_source_positions"):
        return floats(mels, 2 * config.max_source_positions)
    return frames(mels, scale=8)


def _square(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _pixels(config: Any, known: set[str]) -> Maker:
    sides = _square(getattr(config, "image_size", None) or 64)
    channels = int(getattr(config, "num_channels", 3) or 3)
    if getattr(config, "num_frames", None) and "input_ids" not in known:
        return floats(config.num_frames, channels, *sides)
    return floats(channels, *sides)


def _video(config: Any) -> Maker:
    count = getattr(config, "frames_per_clip", None) or getattr(config, "num_frames", 4)
    return floats(count, 3, *_square(getattr(config, "image_size", None) or config.crop_size))
