"""Models of timm, by name or from a folder that timm wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from graphprog.errors import CaptureError
from graphprog.sources.library import library
from graphprog.sources.model_name import ModelName, nearest
from graphprog.sources.source import Source


def load_timm(name: ModelName) -> Source:
    """Load ``timm:name``; a folder is one that ``timm.models.save_for_hf`` wrote.

    Options: ``#random`` leaves the weights untrained, for trials.

    Raises:
        CaptureError: timm is not installed, or knows no such model.
    """
    name.require_options(("random",))
    timm = library("timm", "a timm: name")
    wanted = name.rest
    if Path(wanted).is_dir():
        wanted = f"local-dir:{Path(wanted).resolve()}"
    elif ":" not in wanted and not timm.is_model(wanted.partition(".")[0]):
        raise CaptureError(
            f"{name.text}: timm has no such model{nearest(wanted, timm.list_models())}"
        )
    model = timm.create_model(wanted, pretrained="random" not in name.options).eval()
    config = timm.data.resolve_data_config({}, model=model)
    hints = {"mean": config["mean"], "std": config["std"]}
    if "random" not in name.options and (labels := _labels(timm, model)):
        hints["labels"] = labels
    return Source(model, (torch.zeros(2, *config["input_size"]),), hints=hints)


def _labels(timm: Any, model: Any) -> tuple[str, ...]:
    """Return the names of the classes: those of its folder, or of the ImageNet that it learned."""
    known = model.pretrained_cfg
    names = known.get("label_names") or ()
    if not names and known.get("source") != "local-dir":
        subset = timm.data.infer_imagenet_subset(model)
        names = timm.data.ImageNetInfo(subset).label_descriptions() if subset else ()
    return tuple(names) if len(names) == model.num_classes else ()
