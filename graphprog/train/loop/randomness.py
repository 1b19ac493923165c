"""Randomness of a training run: its own streams, and everybody else's left as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy
import torch


def derived_seed(*numbers: int) -> int:
    """A 32-bit seed for every sequence of numbers, far from those of its neighbors."""
    return int(numpy.random.SeedSequence(numbers).generate_state(1)[0])


def reseed(*numbers: int) -> None:
    """Start the global streams of Python, NumPy and torch (all devices) from derived seeds."""
    seed = derived_seed(*numbers)
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def preserved(device: torch.device) -> Iterator[None]:
    """Leave the global streams, and that of a device, as they were before the block."""
    python, legacy = random.getstate(), numpy.random.get_state()
    devices = [] if device.type == "cpu" else [device.index or 0]
    kind = "cuda" if device.type == "cpu" else device.type
    try:
        with torch.random.fork_rng(devices, device_type=kind):
            yield
    finally:
        random.setstate(python)
        numpy.random.set_state(legacy)
