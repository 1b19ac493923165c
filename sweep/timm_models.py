"""Families of timm: the smallest model of each module, on the smallest image that it takes."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from sweep.examples import calling, floats
from sweep.family import Case, Family, settled
from sweep.timm_smallest import SMALLEST

SIDES = (64, 96, 128, 224, 256)
LARGE = 8_000_000
"""Weights from which on fewer blocks are tried."""


@functools.cache
def families() -> tuple[Family, ...]:
    """All of them; one for each module."""
    import timm

    return tuple(
        Family(f"timm/{module}", "vision", functools.partial(built, module))
        for module in timm.list_modules()
        if module in SMALLEST or timm.list_models(module=module)
    )


def built(module: str) -> Case:
    """The small model of a family."""
    import timm

    name = SMALLEST.get(module) or min(timm.list_models(module=module), key=len)
    errors: list[Exception] = []
    for side in SIDES:
        for options in ({"img_size": side}, {}):
            try:
                model = _model(name, options)
                with torch.no_grad():
                    model(floats(3, side, side)(2, 0))
            except Exception as error:  # any library's; the next size may be one it takes
                errors.append(error)
                continue
            call = calling({"x": floats(3, side, side)}, {})
            return Case(model, call, (None, {"x": {}}), what=name)
    raise errors[0]


def _model(name: str, options: dict[str, Any]) -> nn.Module:
    import timm

    torch.manual_seed(0)
    with torch.device("meta"):
        size = sum(weight.numel() for weight in timm.create_model(name).parameters())
    if size > LARGE:
        try:
            return settled(timm.create_model(name, num_classes=10, depth=2, **options))
        except (TypeError, AssertionError, IndexError):
            torch.manual_seed(0)
    return settled(timm.create_model(name, num_classes=10, **options))
