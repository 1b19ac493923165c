"""The peak memory of a call."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterable

import psutil
import torch

from tests.support.peak_memory import PeakMemory


def peak_bytes(
    call: Callable[[], object], device: str, weights: Iterable[torch.Tensor] = ()
) -> int:
    """Return the bytes of weights, and the most that tensors made by a call hold at a time.

    Args:
        call: what is run; what it returns counts as well. It has run before, so that nothing is
            made that later calls find.
        device: on ``cuda``, the allocator counts, what operations need inside included; on the
            CPU, the tensors that operations return.
        weights: tensors that are there anyway, such as the frozen ones.
    """
    fixed = sum({one.untyped_storage().data_ptr(): one.nbytes for one in weights}.values())
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return fixed + torch.cuda.max_memory_allocated() - before
    with PeakMemory() as memory:
        call()
    return fixed + memory.peak


def resident_peak(call: Callable[[], object], interval: float = 0.005) -> int:
    """Return the largest resident set of this process during a call, as a thread samples it.

    Args:
        call: what is run.
        interval: seconds between samples.
    """
    process, done, found = psutil.Process(), threading.Event(), [0]
    gc.collect()

    def watch() -> None:
        while not done.wait(interval):
            found[0] = max(found[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        call()
    finally:
        done.set()
        watcher.join()
    return max(found[0], process.memory_info().rss)
