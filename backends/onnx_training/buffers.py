"""Tensors that a step reads and replaces, in memory that stays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from onnxruntime import OrtValue


class Buffers:
    """Two sets of memory: a step reads one and writes the other, and then they change places.

    Args:
        values: what is in both at first.
        device: ``cpu`` or ``cuda``.

    Attributes:
        now: what the next step reads.
        then: where it writes.
    """

    def __init__(self, values: Mapping[str, torch.Tensor], device: str) -> None:
        self._device = device
        self.now = {name: self._own(value) for name, value in values.items()}
        self.then = {name: self._own(value) for name, value in values.items()}

    def swap(self) -> None:
        """Let what was written be what is read."""
        self.now, self.then = self.then, self.now

    def put(self, values: Mapping[str, torch.Tensor]) -> None:
        """Replace some of what the next step reads."""
        self.now |= {name: self._own(value) for name, value in values.items()}

    def read(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """Copies of some of what the next step reads."""
        return {name: torch.from_numpy(self.now[name].numpy().copy()) for name in names}

    def _own(self, value: torch.Tensor) -> OrtValue:
        array: np.ndarray = value.detach().cpu().numpy().copy()
        return OrtValue.ortvalue_from_numpy(array, self._device)
