"""Families of timm: the smallest model of each module, on the smallest image that it takes."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from sweep.examples import calling, floats
from sweep.families.timm_smallest import SMALLEST
from sweep.family import Case, Family, settled

SIDES = (64, 96, 128, 224, 256)

DEPTHS: tuple[dict[str, Any], ...] = (
    {"depth": 2},
    {"depths": (1, 1, 2, 1)},
    {"depths": (1, 2, 1)},
    {"layers": (1, 1, 2, 1)},
    {"block_config": (1, 1, 2, 1)},
    {"serial_depths": (1, 1, 1, 1), "parallel_depth": 1},
    {},
)
"""Options that give a model fewer blocks; tried in order, since models name them differently."""


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
    depths = ({},) if name.startswith("test_") else DEPTHS
    errors: list[Exception] = []
    for depth in depths:
        for side in SIDES:
            for size in ({"img_size": side}, {}):
                try:
                    model = _running(name, side, {**depth, **size})
                except Exception as error:  # any library's; the next may be what it takes
                    errors.append(error)
                    continue
                call = calling({"x": floats(3, side, side)}, {})
                return Case(model, call, (None, {"x": {}}), what=name)
    raise errors[-1]


def _running(name: str, side: int, options: dict[str, Any]) -> nn.Module:
    import timm

    with torch.device("meta"):  # most options that a model does not know are refused here
        timm.create_model(name, num_classes=10, **options)
    torch.manual_seed(0)
    model = settled(timm.create_model(name, num_classes=10, **options))
    with torch.no_grad():
        model(floats(3, side, side)(2, 0))
    return model
