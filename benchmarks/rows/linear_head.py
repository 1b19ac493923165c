"""Row 7: a linear head, 20 epochs, whole training, beside a plain loop.

    python -m benchmarks.rows.linear_head [--tiny]

The source is a vision transformer of 12 blocks of width 384 with 128 images of 128×128. The loop
runs it under ``no_grad`` in every epoch; `gp.fit` includes its choice of what to keep, its pass
over the data and its checks.
"""

from __future__ import annotations

import graphprog as gp
from benchmarks.table.records import Ask, Record, Row, Setting
from benchmarks.table.script import main
from benchmarks.works.images import CLASSES, head_loop
from benchmarks.works.training import whole

ROW = Row(
    7,
    "linear head, 20 epochs, whole training (bound 20)",
    "plain loop under no_grad",
    (Ask("", 15.0), Ask("kept on disk", 15.0)),
)
EPOCHS = 20


def measure(setting: Setting) -> list[Record]:
    """Measure one training run of each."""
    return whole(
        ROW,
        setting,
        lambda width: gp.Program(align=gp.LinearHead(CLASSES, at="features")),
        head_loop,
        EPOCHS,
    )


if __name__ == "__main__":
    main(ROW, measure)
