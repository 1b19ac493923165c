"""Lets torchvision import beside a CPU build of torch.

On Linux the registry's torchvision is compiled for CUDA. Beside a CPU torch its library of
compiled operators does not load, and then ``import torchvision`` fails where it describes two of
those operators, taking timm and parts of transformers with it. Declaring the two, without any
implementation, is enough for everything that does not call them: the model zoos do not.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def compiled_operators_load() -> bool:
    """Whether torchvision's compiled operators can be loaded; true as well if it is absent."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True
    folder = Path(spec.origin).parent
    try:
        for library in (*folder.glob("_C*.so"), *folder.glob("_C*.pyd")):
            torch.ops.load_library(str(library))
    except OSError:
        return False
    return True


@functools.cache
def declare_missing_operators() -> torch.library.Library | None:
    """Declare ``nms`` and ``qnms`` if torchvision's own cannot be loaded.

    Call before the first import of torchvision; later calls do nothing more.
    """
    if compiled_operators_load():
        return None
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + _SIGNATURE)
    return library
