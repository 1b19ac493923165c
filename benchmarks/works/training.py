"""Whole training runs of a program on images: by hand, and with what is kept of samples."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

import graphprog as gp
from benchmarks.table.records import OURS, Record, Row, Setting, record
from benchmarks.turns import in_turns
from benchmarks.works.images import BATCH, Data, captured, images, vit_small

ByHand = Callable[[nn.Module, Data, int], None]


def whole(
    row: Row, setting: Setting, program: Callable[[int], gp.Program], by_hand: ByHand, epochs: int
) -> list[Record]:
    """Measure one run by hand, one that keeps values in memory, and one that keeps them on disk.

    Args:
        row: asks for two ratios, in memory and on disk.
        setting: how it is measured.
        program: of the width of the source.
        by_hand: the plain loop.
        epochs: of each run.
    """
    side, count = (32, 32) if setting.tiny else (128, 128)
    model: Any = vit_small(setting, side)
    data = images(count, side)
    task = gp.compile(captured(model, side, setting), program(model.num_features))
    runs = {
        kind: functools.partial(
            gp.fit, task, data, reuse=kind, epochs=epochs, batch_size=BATCH, progress=False
        )
        for kind in ("memory", "disk")
    }
    loop = functools.partial(by_hand, model, data, epochs)
    times = in_turns({"plain loop": loop, **runs}, setting, least=1, warm=False)
    return [
        record(row, ask, {"plain loop": times["plain loop"], OURS: times[kind]}, setting)
        for ask, kind in zip(row.asks, runs, strict=True)
    ]
