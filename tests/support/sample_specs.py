"""Specs with fields of every sort, and how to compare them."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch

from graphprog.spec.registry import Spec, spec


@spec("test-leaf")
@dataclasses.dataclass(frozen=True, eq=False)
class Leaf(Spec):
    text: str = ""
    count: int = 3
    scale: float | None = None
    on: bool = False
    by: Literal["rows", "columns"] = "rows"
    tensor: torch.Tensor | None = None


@spec("test-branch")
@dataclasses.dataclass(frozen=True, eq=False)
class Branch(Spec):
    first: Leaf | Branch
    rest: tuple[Leaf | Branch, ...] = ()
    numbers: tuple[int, ...] = (1, 2)
    nested: tuple[tuple[float, str], ...] = ()
    leaves: tuple[Leaf, ...] = (Leaf(text="default"),)


def bits(value: Any) -> Any:
    """What two equal values share and two different ones do not, NaN and tensors included."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.dtype, value.numpy().tobytes()
    if isinstance(value, Spec):
        return value.kind, [bits(getattr(value, f.name)) for f in dataclasses.fields(value)]
    if isinstance(value, tuple):
        return [bits(item) for item in value]
    return repr(value)
