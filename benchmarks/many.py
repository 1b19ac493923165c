"""Several programs on one source: `gp.fit_many` beside runs that follow one another.

    python benchmarks/many.py

The source is a vision transformer of 12 blocks of width 384 with 128 images of 64×64. 16 learning
rates of a linear head and of a vector before block 9, 5 epochs each; and 16 seeds of a pattern on
images, 1 epoch each. "Loops" are 16 loops in plain PyTorch, of which one is measured; "fits" are
16 calls of `gp.fit` that keep nothing, likewise. Processor time on one thread, in one process.
"""

from __future__ import annotations

import functools
import resource

import torch
from reuse import BATCH, SAMPLES, WIDTH, head_loop, inside_loop, network, processor_time
from turns import machine

import graphprog as gp

RUNS = 16


def main() -> None:
    torch.set_num_threads(1)
    print(machine())
    model = network()
    data = torch.rand(SAMPLES, 3, 64, 64), torch.arange(SAMPLES) % 10
    graph = gp.capture(model, (data[0][:2],))
    vector = gp.Additive(at="blocks.9:in", value=gp.Learnable(shape=(WIDTH,)))
    jobs = {
        "head": (gp.Program(align=gp.LinearHead(10, at="features")), head_loop, 5),
        "block 9": (gp.Program([vector]), inside_loop, 5),
        "pattern": (gp.Program([gp.Additive()]), None, 1),
    }
    for name, (program, by_hand, epochs) in jobs.items():
        own = {"epochs": epochs, "batch_size": BATCH, "progress": False}
        rates = {f"run {n}": {**own, "lr": 0.01 * 0.8**n, "seed": n} for n in range(RUNS)}
        runs = {key: (gp.compile(graph, program), data, more) for key, more in rates.items()}
        task = gp.compile(graph, program)
        alone = processor_time(functools.partial(gp.fit, task, data, reuse="off", **own))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        together = processor_time(functools.partial(gp.fit_many, runs))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        line = f"{name}: {RUNS} fits / fit_many {RUNS * alone / together:.2f}"
        if by_hand is not None:
            loop = processor_time(functools.partial(by_hand, model, data, epochs))
            line += f", {RUNS} loops / fit_many {RUNS * loop / together:.2f}"
        print(f"{line}, peak memory {after / before:.2f} × one")


if __name__ == "__main__":
    main()
