"""Row 2: a step of a soft prompt that is longer than the text, two label words.

python -m benchmarks.rows.long_prompts [--device cuda] [--tiny]
"""

from __future__ import annotations

from benchmarks.table.records import Ask, Record, Row, Setting, record
from benchmarks.table.script import main
from benchmarks.turns import in_turns
from benchmarks.works.soft_prompts import Size, Source, contestants
from benchmarks.works.steps import agreement

ROW = Row(
    2,
    "soft prompt step, two label words, GPT-2 small size",
    "PEFT",
    (Ask("8 × 64 + 100", 2.9), Ask("16 × 32 + 100", 4.4)),
    gpu=True,
)
SIZES = (Size(8, 64, 100), Size(16, 32, 100))


def measure(setting: Setting) -> list[Record]:
    """Measure both sizes."""
    source, found = Source(setting), []
    for ask, size in zip(ROW.asks, SIZES, strict=True):
        calls = contestants(source, Size(2, 6, 9) if setting.tiny else size)
        note = agreement(calls)
        found.append(record(ROW, ask, in_turns(calls, setting, warm=False), setting, note))
    return found


if __name__ == "__main__":
    main(ROW, measure)
