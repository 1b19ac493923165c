"""Row 10: 16 seeds of an input pattern by `gp.fit_many`, beside 16 calls of `gp.fit`.

    python -m benchmarks.rows.seeds [--tiny]

A vision transformer of 12 blocks of width 384, 128 images of 64×64, one epoch. Of the 16 calls,
which do the same work, one is measured and counts 16 times. Memory is the largest resident set of
the process during a run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import graphprog as gp
from benchmarks.peak import resident_peak
from benchmarks.table.records import OURS, Ask, Record, Row, Setting, record
from benchmarks.table.script import main
from benchmarks.turns import in_turns
from benchmarks.works.images import BATCH, captured, images, vit_small

ROW = Row(
    10,
    "16 seeds of an input pattern",
    "16 runs",
    (Ask("", 1.0), Ask("", 2.0, least=False, quantity="memory", peer="one run")),
)
RUNS = 16


def measure(setting: Setting) -> list[Record]:
    """Measure time, then memory."""
    side, count = (32, 32) if setting.tiny else (64, 128)
    data = images(count, side)
    graph = captured(vit_small(setting, side), side, setting)
    settings = {"epochs": 1, "batch_size": BATCH, "progress": False}

    tasks = [gp.compile(graph, gp.Program([gp.Additive()])) for _ in range(RUNS)]
    runs = {f"seed {n}": (task, data, {**settings, "seed": n}) for n, task in enumerate(tasks)}
    alone = functools.partial(gp.fit, tasks[0], data, **settings)
    calls: dict[str, Callable[[], object]] = {"16 runs": alone}
    calls[OURS] = functools.partial(gp.fit_many, runs)
    times = in_turns(calls, setting, least=1, warm=False)
    times["16 runs"] = [RUNS * seconds for seconds in times["16 runs"]]
    peaks = {"one run": [resident_peak(alone)], OURS: [resident_peak(calls[OURS])]}
    time, memory = ROW.asks
    return [
        record(ROW, time, times, setting, "one run is measured"),
        record(ROW, memory, peaks, setting),
    ]


if __name__ == "__main__":
    main(ROW, measure)
