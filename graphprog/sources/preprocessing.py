"""Hints from the preprocessing and the configuration of a model of transformers."""

from __future__ import annotations

from typing import Any

_GENERIC = "LABEL_"  # of configurations without names


def hints_of(processor: Any, config: Any) -> dict[str, Any]:
    """Return mean, deviation, sample rate and labels, as far as they are known."""
    hints: dict[str, Any] = {}
    image = getattr(processor, "image_processor", processor)
    sound = getattr(processor, "feature_extractor", processor)
    if hasattr(image, "do_rescale"):
        hints.update(_normalization(image))
    if getattr(sound, "sampling_rate", None):
        hints["sample_rate"] = int(sound.sampling_rate)
    names = getattr(config, "id2label", None) or {}
    labels = tuple(str(names[number]) for number in sorted(names))
    if labels and not all(label.startswith(_GENERIC) for label in labels):
        hints["labels"] = labels
    return hints


def _normalization(image: Any) -> dict[str, tuple[float, ...]]:
    """Return mean and deviation in units of [0, 1]; nothing where the model reads [0, 255].

    The library computes ``(x · factor - offset - mean) / std`` on x in [0, 255].
    """
    if not image.do_rescale:
        return {}
    scale = 255 * float(image.rescale_factor)
    offset = 1.0 if getattr(image, "rescale_offset", False) else 0.0
    known = bool(getattr(image, "do_normalize", False)) and bool(image.image_mean)
    mean, std = (image.image_mean, image.image_std) if known else ((0.0,), (1.0,))
    return {
        "mean": tuple(round((float(one) + offset) / scale, 12) for one in mean),
        "std": tuple(round(float(one) / scale, 12) for one in std),
    }
