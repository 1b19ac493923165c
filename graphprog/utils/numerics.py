"""Differences between two arrays."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch


@dataclasses.dataclass(frozen=True)
class Difference:
    """Largest absolute difference, and its ratio to the largest magnitude of the reference."""

    absolute: float
    relative: float

    def within(self, tolerance: float) -> bool:
        """Whether the absolute or the relative difference is within the tolerance."""
        return min(self.absolute, self.relative) <= tolerance


def difference(reference: Any, found: Any) -> Difference:
    """Compare two arrays; values that are not finite are equal or differ infinitely."""
    right, other = wide(reference), wide(found)
    if right.shape != other.shape:
        return Difference(float("inf"), float("inf"))
    if right.size == 0:
        return Difference(0.0, 0.0)
    same = (right == other) | (np.isnan(right) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        gaps = np.where(same, 0.0, np.abs(right - other))
    largest = float(np.nan_to_num(gaps, nan=np.inf, posinf=np.inf).max())
    finite = np.abs(right[np.isfinite(right)])
    scale = float(finite.max()) if finite.size else 0.0
    return Difference(largest, largest / scale if scale else (0.0 if largest == 0 else np.inf))


def wide(value: Any) -> np.ndarray:
    """Return a tensor or array in float64."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().to(torch.float64).numpy()
    return np.asarray(value, dtype=np.float64)
