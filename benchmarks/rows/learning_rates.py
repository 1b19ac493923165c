"""Row 9: 16 learning rates by `gp.fit_many`, beside 16 loops in plain PyTorch, one after another.

    python -m benchmarks.rows.learning_rates [--device cuda] [--tiny]

A vision transformer of 12 blocks of width 384, 128 images, 5 epochs each: a linear head, and a
vector before block 9. The loops run what is frozen under ``no_grad``. They do the same work in
each of the 16 runs, so one is measured in every turn, and counts 16 times.

The bound of the second: in units of a block forward, an epoch by hand takes 12 + 3 backward, and
here 3 + 3 after one pass over the first 9, so 16 · 5 · 15 / (9 + 16 · 5 · 6).
"""

from __future__ import annotations

import functools

import graphprog as gp
from benchmarks.table.records import OURS, Ask, Record, Row, Setting, record
from benchmarks.table.script import main
from benchmarks.turns import in_turns
from benchmarks.works.images import (
    BATCH,
    CLASSES,
    captured,
    head_loop,
    images,
    inside_loop,
    vit_small,
)

ROW = Row(
    9,
    "16 learning rates",
    "16 runs in plain PyTorch, one after another",
    (Ask("a linear head", 8.0), Ask("a program at hidden[9] (bound 2.5)", 8.0)),
    gpu=True,
)
RUNS, EPOCHS = 16, 5


def measure(setting: Setting) -> list[Record]:
    """Measure both programs."""
    side, count = (32, 32) if setting.tiny else (224, 512) if setting.cuda else (64, 128)
    model = vit_small(setting, side)
    data = images(count, side)
    graph = captured(model, side, setting)
    inside = gp.Additive(at="blocks.9:in", value=gp.Learnable(shape=(model.num_features,)))
    jobs = (
        (gp.Program(align=gp.LinearHead(CLASSES, at="features")), head_loop),
        (gp.Program([inside]), inside_loop),
    )
    found = []
    for ask, (program, by_hand) in zip(ROW.asks, jobs, strict=True):
        loop = functools.partial(by_hand, model, data, EPOCHS)
        settings = {"epochs": EPOCHS, "batch_size": BATCH, "progress": False}
        runs = {
            f"rate {n}": (gp.compile(graph, program), data, {**settings, "lr": 0.01 * 0.8**n})
            for n in range(RUNS)
        }
        calls = {"16 loops": loop, OURS: functools.partial(gp.fit_many, runs)}
        times = in_turns(calls, setting, least=1, warm=setting.cuda)
        times["16 loops"] = [RUNS * seconds for seconds in times["16 loops"]]
        found.append(record(ROW, ask, times, setting, "one loop is measured"))
    return found


if __name__ == "__main__":
    main(ROW, measure)
