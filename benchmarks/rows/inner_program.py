"""Row 8: a program at `hidden[9]` of 12 blocks, 10 epochs, whole training, beside a plain loop.

    python -m benchmarks.rows.inner_program [--tiny]

As row 7, with a vector that is added to the input of block 9. The loop runs what is before it
under ``no_grad``.
"""

from __future__ import annotations

import graphprog as gp
from benchmarks.table.records import Ask, Record, Row, Setting
from benchmarks.table.script import main
from benchmarks.works.images import inside_loop
from benchmarks.works.training import whole

ROW = Row(
    8,
    "program at hidden[9] of 12, 10 epochs, whole training (bound 2.2)",
    "plain loop",
    (Ask("", 2.1), Ask("kept on disk", 2.1)),
)
EPOCHS = 10


def measure(setting: Setting) -> list[Record]:
    """Measure one training run of each."""
    return whole(
        ROW,
        setting,
        lambda width: gp.Program(
            [gp.Additive(at="blocks.9:in", value=gp.Learnable(shape=(width,)))]
        ),
        inside_loop,
        EPOCHS,
    )


if __name__ == "__main__":
    main(ROW, measure)
