"""Example inputs of a model of transformers, by the names of its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from graphprog.sources.source import Axes

BATCH, LENGTH, SAMPLES, SIZE, FRAMES = 2, 9, 4000, 224, 16
_MODALITIES = {
    "input_ids": ("text",),
    "pixel_values": ("image", "video"),
    "input_values": ("audio",),
    "input_features": ("audio",),
}


def example_call(model: Any, processor: Any) -> tuple[dict[str, Any], Axes]:
    """Return the keyword arguments of one call, and the axes that vary.

    Args:
        model: a model of transformers.
        processor: its preprocessing, if it has one.
    """
    known = inspect.signature(model.forward).parameters
    given = getattr(model, "input_modalities", None) or ()
    modalities = {given} if isinstance(given, str) else set(given)
    call: dict[str, Any] = {}
    axes: dict[str, dict[int, str]] = {}
    for name, kinds in _MODALITIES.items():
        if name in known and (name == model.main_input_name or modalities & set(kinds)):
            call[name], moving = _MAKERS[name](model, processor, modalities)
            axes[name] = {0: "batch", **moving}
    if "input_ids" in call and "attention_mask" in known:
        call["attention_mask"] = torch.ones_like(call["input_ids"])
        axes["attention_mask"] = dict(axes["input_ids"])
    if _writes(model) and "decoder_input_ids" in known:
        call["decoder_input_ids"] = _ids(model, LENGTH - 2)
        axes["decoder_input_ids"] = {0: "batch", 1: "target"}
    if "use_cache" in known:
        call["use_cache"] = False
    return call, axes


def _writes(model: Any) -> bool:
    """Whether a decoder reads ids of its own: in text generation, and in models without a head."""
    is_pair = bool(getattr(model.config, "is_encoder_decoder", False))
    return is_pair and (model.can_generate() or model.base_model is model)


Made = tuple[torch.Tensor, Mapping[int, str]]


def _ids(model: Any, length: int) -> torch.Tensor:
    """Return token ids that are none of the first few, which are special."""
    vocabulary = int(model.config.get_text_config().vocab_size)
    numbers = torch.arange(BATCH * length).reshape(BATCH, length)
    return 4 + numbers % (vocabulary - 4) if vocabulary > 8 else numbers % vocabulary


def _tokens(model: Any, processor: Any, modalities: set[str]) -> Made:
    return _ids(model, LENGTH), {1: "sequence"}


def _pixels(model: Any, processor: Any, modalities: set[str]) -> Made:
    config = getattr(model.config, "vision_config", model.config)
    image = getattr(processor, "image_processor", processor)
    sizes = (
        getattr(config, "image_size", None),
        getattr(image, "crop_size", None) if getattr(image, "do_center_crop", False) else None,
        getattr(image, "size", None),
    )
    height, width = next(filter(None, map(_size, sizes)), (SIZE, SIZE))
    channels = getattr(config, "num_channels", None) or 3
    frames = (getattr(config, "num_frames", None) or FRAMES,) if "video" in modalities else ()
    return torch.zeros(BATCH, *frames, int(channels), height, width), {}


def _size(value: Any) -> tuple[int, int] | None:
    """Return height and width, however they are written; None where nothing is said."""
    if isinstance(value, int):
        return value, value
    if isinstance(value, list | tuple) and len(value) == 2:
        return int(value[0]), int(value[1])
    read = dict(value) if value else {}
    edge = read.get("shortest_edge")
    height, width = read.get("height", edge), read.get("width", edge)
    return (int(height), int(width)) if height and width else None


def _waves(model: Any, processor: Any, modalities: set[str]) -> Made:
    bins, frames = (getattr(model.config, name, None) for name in ("num_mel_bins", "max_length"))
    if bins and frames:  # a spectrogram of fixed size
        return torch.zeros(BATCH, int(frames), int(bins)), {}
    return torch.zeros(BATCH, SAMPLES), {1: "samples"}


def _features(model: Any, processor: Any, modalities: set[str]) -> Made:
    extractor = getattr(processor, "feature_extractor", processor)
    rate = getattr(extractor, "sampling_rate", None)
    if rate is not None:
        found = extractor([0.0] * int(rate), sampling_rate=rate, return_tensors="pt")
        return found["input_features"].repeat_interleave(BATCH, 0), {}
    config = model.config
    return torch.zeros(BATCH, config.num_mel_bins, 2 * config.max_source_positions), {}


_MAKERS = {
    "input_ids": _tokens,
    "pixel_values": _pixels,
    "input_values": _waves,
    "input_features": _features,
}
