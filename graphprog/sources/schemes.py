"""Which loader reads which scheme."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

from graphprog.errors import CaptureError
from graphprog.sources.factory import load_factory
from graphprog.sources.model_name import FACTORY, ModelName, nearest
from graphprog.utils.lazy import load

ENTRY_POINTS = "graphprog.sources"
"""Entry point group by which other packages add schemes: a function of a :class:`ModelName` that
returns a :class:`Source`."""

SCHEMES = {
    "timm": "graphprog.sources.timm_models:load_timm",
    "torchvision": "graphprog.sources.torchvision_models:load_torchvision",
    "hf": "graphprog.sources.transformers_models:load_transformers",
    "peft": "graphprog.sources.peft_folder:load_peft",
    "gguf": "graphprog.sources.transformers_models:load_gguf",
    "python": "graphprog.sources.factory:load_factory",
    "safetensors": "graphprog.sources.factory:load_weights",
}
"""Loaders by scheme, as ``module:function``; imported when a name has the scheme."""

FORMS = (
    "timm:resnet18, torchvision:resnet18, hf:owner/name, timm:folder, hf:folder, peft:folder",
    (
        "model.graph, model.pt2, model.gguf, package.module:factory, "
        "weights.safetensors#package.module:factory"
    ),
)
"""The forms of a name, for messages."""


def loader_of(name: ModelName) -> Callable[[ModelName], Any]:
    """Return the function that loads a name.

    Raises:
        CaptureError: no loader knows its scheme.
    """
    added = importlib.metadata.entry_points(group=ENTRY_POINTS)
    found: Callable[[ModelName], Any]
    if name.scheme in SCHEMES:
        found = load(SCHEMES[name.scheme])
        return found
    for entry in added.select(name=name.scheme):
        found = entry.load()
        return found
    if FACTORY.fullmatch(name.text) and _is_module(name.scheme):
        return load_factory
    known = {*SCHEMES, *added.names} - {"python"}
    raise CaptureError(
        f"{name.text!r} is not the name of a model{nearest(name.scheme, known)}", FORMS
    )


def _is_module(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None
