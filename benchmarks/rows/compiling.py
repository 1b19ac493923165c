"""Row 14: compiling a program with all default passes, beside the capture of its source.

    python -m benchmarks.rows.compiling [--tiny]

What `gp.compile` does, what the first training step adds (only what is read, a prompt computed
once a step), and the choice of what to keep of samples.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch

import graphprog as gp
from benchmarks.table.records import OURS, Ask, Record, Row, Setting, record
from benchmarks.table.script import main
from benchmarks.turns import in_turns
from benchmarks.works.images import vit_base
from benchmarks.works.soft_prompts import Source, capture
from graphprog.compiler.running import Running
from graphprog.train.reuse.stages import Stages

ROW = Row(
    14,
    "compile with all default passes",
    "capture",
    (
        Ask("GPT-2 small size, soft prompt of 20", 0.5, least=False),
        Ask("ViT-B/16 size, VPT-deep and a head", 0.5, least=False),
    ),
)


def compiled(graph: gp.Graph, program: gp.Program) -> None:
    """Compile a program, and make the graphs that training runs."""
    task = gp.compile(graph, program)
    assert Running(task.graph).graph is not None
    Stages.of(task.graph)


def jobs(setting: Setting) -> Iterator[tuple[Callable[[], gp.Graph], gp.Program]]:
    """Yield the capture of each source, and a program for it."""
    prompt = gp.Concatenative(at="tokens", length=20, value=gp.Learnable("normal"))
    yield functools.partial(capture, Source(setting).model), gp.Program([prompt])
    vit: Any = vit_base(setting)
    side = vit.patch_embed.img_size[0]
    image = (torch.rand(2, 3, side, side),)
    head = gp.LinearHead(10, at="features")
    yield lambda: gp.capture(vit, image), gp.Program(gp.methods.vpt_deep(10), head)


def measure(setting: Setting) -> list[Record]:
    """Measure both; the first turn also warms what both need, and does not count."""
    found = []
    for ask, (make, program) in zip(ROW.asks, jobs(setting), strict=True):
        calls: dict[str, Callable[[], object]] = {"capture": make}
        calls[OURS] = functools.partial(compiled, make(), program)
        found.append(record(ROW, ask, in_turns(calls, setting), setting))
    return found


if __name__ == "__main__":
    main(ROW, measure)
