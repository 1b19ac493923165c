"""Training step of a pixel program: the captured graph and its optimized form, against eager.

    python -m benchmarks.optimize [threads]

The frozen source is EfficientNet-Lite0. All contestants do the same step (forward, cross-entropy
of a frequency map, backward to the pattern) in turns, in one process; the ratio of the medians
is what counts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch.nn import functional

import graphprog as gp
from benchmarks.turns import efficientnet_lite0, machine, side_by_side

BATCH = 32


def contestants(side: int) -> dict[str, Callable[[], None]]:
    """One training step each, by name."""
    model = efficientnet_lite0()
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
    print(machine())
    for side in (64, 96, 224):
        medians = side_by_side(contestants(side))
        for name, median in medians.items():
            ratio = medians["eager"] / median
            print(f"{side:4d}²  {name:10s} {1e3 * median:8.1f} ms  {ratio:5.2f} × eager")


if __name__ == "__main__":
    main()
