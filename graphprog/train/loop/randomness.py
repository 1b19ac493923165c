"""Randomness of a training run: derived seeds, and global random states that it restores."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy
import torch


def derived_seed(*numbers: int) -> int:
    """Derive a 32-bit seed from integers; nearby integers give unrelated seeds."""
    return int(numpy.random.SeedSequence(numbers).generate_state(1)[0])


def reseed(*numbers: int) -> None:
    """Seed Python, NumPy and torch (all devices) from integers."""
    seed = derived_seed(*numbers)
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def stream_state() -> tuple[object, ...]:
    """Return the global random states on the CPU; equal states give equal numbers."""
    kind, keys, *rest = numpy.random.get_state()
    legacy = (kind, numpy.asarray(keys).tobytes(), *rest)
    return random.getstate(), legacy, torch.get_rng_state().numpy().tobytes()


@contextmanager
def preserved(device: torch.device) -> Iterator[None]:
    """Restore the global random states, and that of a device, after the block."""
    python, legacy = random.getstate(), numpy.random.get_state()
    devices = [] if device.type == "cpu" else [device.index or 0]
    kind = "cuda" if device.type == "cpu" else device.type
    try:
        with torch.random.fork_rng(devices, device_type=kind):
            yield
    finally:
        random.setstate(python)
        numpy.random.set_state(legacy)
