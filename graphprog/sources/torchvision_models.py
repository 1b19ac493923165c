"""Models of torchvision, by name."""

from __future__ import annotations

from typing import Any

import torch

from graphprog.errors import CaptureError
from graphprog.sources.library import library
from graphprog.sources.model_name import ModelName, nearest
from graphprog.sources.source import Source

_SIZE, _FRAMES = 224, 16  # of models that do not say


def load_torchvision(name: ModelName) -> Source:
    """Load ``torchvision:name`` with its default weights.

    Options: ``#weights=IMAGENET1K_V1`` names others, ``#weights=path.pth`` reads a file of a state
    dictionary, and ``#random`` leaves them untrained. Such a model is taken to have the
    preprocessing of the default weights.

    Raises:
        CaptureError: torchvision is not installed, or knows no such model or weights.
    """
    name.require_options(("random", "weights"))
    models = library("torchvision.models", "a torchvision: name")
    known = models.list_models()
    if name.rest not in known:
        near = nearest(name.rest, known)
        raise CaptureError(f"{name.text}: torchvision has no such model{near}")
    entries = {one.name: one for one in models.get_model_weights(name.rest)}
    default = getattr(models.get_model_weights(name.rest), "DEFAULT", None)
    wanted = name.options.get("weights", "DEFAULT")
    trained = default if wanted == "DEFAULT" else entries.get(wanted)
    file = wanted if wanted.endswith((".pth", ".pt")) else ""
    if trained is None and not file and "random" not in name.options:
        raise CaptureError(
            f"{name.text}: no weights {wanted}{nearest(wanted, entries)}",
            [f"use one of {', '.join(entries)}" if entries else "add #random", "#weights=path.pth"],
        )
    untrained = bool(file) or "random" in name.options
    model = models.get_model(name.rest, weights=None if untrained else trained)
    if file:
        model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    is_video = name.rest in models.list_models(module=models.video)
    shape, hints = _preprocessing(trained or default, is_video)
    if untrained:
        hints.pop("labels", None)
    images = 2 if name.rest in models.list_models(module=models.optical_flow) else 1
    return Source(model.eval(), (torch.zeros(2, *shape),) * images, hints=hints)


def _preprocessing(weights: Any, is_video: bool) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Return the shape of one example, and the hints, of a set of weights."""
    transforms = weights.transforms() if weights is not None else None
    crop = getattr(transforms, "crop_size", _SIZE)
    height, width = (crop * 2)[:2] if isinstance(crop, list | tuple) else (crop, crop)
    mean, std = getattr(transforms, "mean", None), getattr(transforms, "std", None)
    hints: dict[str, Any] = {"mean": tuple(mean), "std": tuple(std)} if mean and std else {}
    meta = weights.meta if weights is not None else {}
    if meta.get("categories"):
        hints["labels"] = tuple(meta["categories"])
    frames = (max(meta.get("min_temporal_size", 0), _FRAMES),) if is_video else ()
    return (3, *frames, int(height), int(width)), hints
