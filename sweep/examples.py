"""Example inputs, by the names of a forward method's parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from sweep.family import Axes, Call, noise

SEQUENCE = {0: "batch", 1: "sequence"}
TARGET = {0: "batch", 1: "target"}
BATCH = {0: "batch"}

Maker = Callable[[int, int], torch.Tensor]


def ids(vocabulary: int, low: int = 4) -> Maker:
    """Token ids that are none of the special ones."""

    def make(batch: int, length: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(100 * batch + length)
        return torch.randint(low, vocabulary, (batch, length), generator=generator)

    return make


def padded(batch: int, length: int) -> torch.Tensor:
    """An attention mask whose first row ends early."""
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[0, -2:] = 0
    return mask


def floats(*sizes: int) -> Maker:
    """Noise of [batch, *sizes]."""
    return lambda batch, length: noise(batch, *sizes)


def frames(*sizes: int, scale: int = 1) -> Maker:
    """Noise of [batch, length · scale, *sizes]."""
    return lambda batch, length: noise(batch, length * scale, *sizes)


def calling(makers: Mapping[str, Maker], constants: Mapping[str, Any]) -> Call:
    """A call from a maker for every tensor, and constants."""

    def call(batch: int, length: int) -> dict[str, Any]:
        tensors = {name: make(batch, length) for name, make in makers.items()}
        return {**tensors, **constants}

    return call


def axes_of(makers: Mapping[str, Maker]) -> tuple[Axes | None, ...]:
    """All axes that vary in size with batch and length, then the batch alone, then none."""
    full: dict[str, dict[int, str]] = {}
    for name, make in makers.items():
        small, large = make(2, 9).shape, make(2, 12).shape
        moving = {axis: "sequence" for axis, size in enumerate(small) if size != large[axis]}
        full[name] = {0: "batch", **moving}
    none: Axes = {name: {} for name in makers}
    long = any(len(axes) > 1 for axes in full.values())
    return (full, None, none) if long else (None, none)


def parameters_of(model: nn.Module) -> set[str]:
    """Names that the forward method takes."""
    return set(inspect.signature(model.forward).parameters)


def required_of(model: nn.Module) -> set[str]:
    """Names that the forward method cannot do without."""
    parameters = inspect.signature(model.forward).parameters
    return {name for name, one in parameters.items() if one.default is inspect.Parameter.empty}
