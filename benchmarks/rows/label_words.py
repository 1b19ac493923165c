"""Row 1: a step of a soft prompt, two label words, in time and in peak memory.

python -m benchmarks.rows.label_words [--device cuda] [--tiny]
"""

from __future__ import annotations

from benchmarks.peak import peak_bytes
from benchmarks.table.records import Ask, Record, Row, Setting, record
from benchmarks.table.script import main
from benchmarks.turns import in_turns
from benchmarks.works.soft_prompts import Size, Source, contestants
from benchmarks.works.steps import agreement

ROW = Row(
    1,
    "soft prompt step, two label words, GPT-2 small size, 8 × 128 + 20",
    "PEFT",
    (Ask("", 1.7), Ask("", 0.6, least=False, quantity="memory")),
    gpu=True,
)


def measure(setting: Setting) -> list[Record]:
    """Measure time and memory."""
    source = Source(setting)
    calls = contestants(source, Size(2, 8, 3) if setting.tiny else Size(8, 128, 20))
    note = agreement(calls)
    weights = source.weights()
    peaks = {name: [peak_bytes(call, setting.device, weights)] for name, call in calls.items()}
    frozen = f"of which the frozen weights are {sum(one.nbytes for one in weights) / 2**20:.0f} MiB"
    time, memory = ROW.asks
    return [
        record(ROW, time, in_turns(calls, setting, warm=False), setting, note),
        record(ROW, memory, peaks, setting, frozen),
    ]


if __name__ == "__main__":
    main(ROW, measure)
