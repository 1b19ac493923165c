"""Recorded values in a few numbers: range, mean, histogram, and a small picture of one row."""

from __future__ import annotations

from typing import Any

import torch

from graphprog.errors import DataError
from graphprog.ir.interface import dtype_text

_BINS, _LARGEST = 32, 48


def described(name: str, value: object) -> dict[str, Any]:
    """Return JSON values that describe a tensor; what is not finite is counted.

    Raises:
        DataError: it is not a tensor.
    """
    if not isinstance(value, torch.Tensor):
        raise DataError(
            f"the value at {name!r} is {type(value).__name__}, not a tensor",
            ["record it: values = gp.record(graph, inputs, at=[...])"],
        )
    shape = ",".join(map(str, value.shape))
    found: dict[str, Any] = {"type": f"{dtype_text(value.dtype)}[{shape}]"}
    every = value.detach().flatten().to("cpu", torch.float64)
    finite = every[every.isfinite()]
    found["not_finite"] = len(every) - len(finite)
    if len(finite):
        low, high = finite.min(), finite.max()
        found |= {
            "min": float(low),
            "max": float(high),
            "mean": float(finite.mean()),
            "std": float(finite.std(correction=0)),
            "counts": [int(one) for one in _counts(finite)],
            "first": [_short(float(one)) for one in every[:8]],
            "picture": _picture(value.detach().to("cpu", torch.float64)),
        }
    return found


def _counts(finite: torch.Tensor) -> torch.Tensor:
    low, high = finite.min(), finite.max()
    span = torch.where(high > low, high - low, 1.0)
    places = ((finite - low) / span * _BINS).long().clamp(0, _BINS - 1)
    return torch.bincount(places, minlength=_BINS)


def _picture(value: torch.Tensor) -> list[list[int]]:
    """Return the first row as numbers of 0 to 255, at most 48 by 48; -1 is not finite."""
    row = value[0] if value.ndim > 1 else value
    while row.ndim > 2:
        row = row[0]
    row = row.reshape(1, -1) if row.ndim < 2 else row
    steps = [-(-size // _LARGEST) for size in row.shape]
    row = row[:: max(steps[0], 1), :: max(steps[1], 1)]
    finite = row[row.isfinite()]
    if not len(finite):
        return []
    low, high = finite.min(), finite.max()
    levels = (row - low) / torch.where(high > low, high - low, 1.0) * 255
    return torch.where(row.isfinite(), levels, -1.0).round().long().tolist()


def _short(number: float) -> str:
    return f"{number:.5g}"
