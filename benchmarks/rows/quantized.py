"""Row 13: peak memory of a soft prompt's step on a source with int8 weights.

    python -m benchmarks.rows.quantized [--device cuda] [--tiny]

Two label words. What counts are the frozen tensors, and those that a step makes, beside the same
step on the source in float32. The batch is small: what a step keeps for its backward pass is in
float32 on both sides.
"""

from __future__ import annotations

import functools

import graphprog as gp
from benchmarks.peak import peak_bytes
from benchmarks.table.records import OURS, Ask, Record, Row, Setting, record
from benchmarks.table.script import main
from benchmarks.works.soft_prompts import Size, Source, words_loss
from benchmarks.works.steps import step

ROW = Row(
    13,
    "int8 source, soft prompt step, GPT-2 small size, 2 × 64 + 20",
    "float32 source",
    (Ask("", 0.45, least=False, quantity="memory"),),
    gpu=True,
)


def measure(setting: Setting) -> list[Record]:
    """Measure the peak of both."""
    source = Source(setting)
    size = Size(2, 8, 3) if setting.tiny else Size(2, 64, 20)
    graphs = {ROW.peer: source.graph, OURS: gp.optimize(source.graph, weights="int8")}
    peaks, frozen = {}, []
    for name, graph in graphs.items():
        task = source.task(size.prompt, words=True, graph=graph)
        tensors = [*task.source.parameters(), *task.source.buffers()]
        loss, trained = words_loss(source, size, task), list(task.program.parameters())
        call = functools.partial(step, loss, trained)
        call()
        peaks[name] = [peak_bytes(call, setting.device, tensors)]
        frozen.append(f"{name} {sum(one.nbytes for one in tensors) / 2**20:.0f} MiB")
    return [record(ROW, ROW.asks[0], peaks, setting, f"frozen tensors: {', '.join(frozen)}")]


if __name__ == "__main__":
    main(ROW, measure)
