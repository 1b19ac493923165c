"""Row 3: a step of a soft prompt with the loss of a language model on answers.

python -m benchmarks.rows.answers [--device cuda] [--tiny]
"""

from __future__ import annotations

from benchmarks.table.records import Ask, Record, Row, Setting, record
from benchmarks.table.script import main
from benchmarks.turns import in_turns
from benchmarks.works.soft_prompts import Size, Source, contestants
from benchmarks.works.steps import agreement

ROW = Row(
    3,
    "language-model loss on answers (a quarter of the tokens), GPT-2 small size, 8 × 128 + 20",
    "PEFT",
    (Ask("", 1.4),),
    gpu=True,
)


def measure(setting: Setting) -> list[Record]:
    """Measure the step."""
    size = Size(2, 8, 3) if setting.tiny else Size(8, 128, 20)
    calls = contestants(Source(setting), size, answers=True)
    note = agreement(calls)
    return [record(ROW, ROW.asks[0], in_turns(calls, setting, warm=False), setting, note)]


if __name__ == "__main__":
    main(ROW, measure)
