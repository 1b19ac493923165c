"""Demonstrations teach a frozen language model a mapping that it was never trained on.

    python examples/03_demonstrations/run.py
    python examples/03_demonstrations/run.py --model hf:gpt2

The model is trained by ``train.py`` where it is not there yet, or is the one that is named. The
table and the picture go into ``outputs/`` beside this script.
"""

from __future__ import annotations

import dataclasses
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pictures
import symbols
import torch
import train
from rich.progress import track
from rich.table import Table

import graphprog as gp

sys.path.append(str(Path(__file__).parent.parent))
import language_models
import reporting

OUTPUTS = Path(__file__).parent / "outputs"
COUNTS = (0, 1, 2, 4, 8, 16)
SEEDS = (0, 1, 2)
LESSONS = 8
ALIGN = gp.Verbalizer({letter: f" {letter}" for letter in symbols.LETTERS})


@dataclasses.dataclass(frozen=True)
class Row:
    """What a number of demonstrations reaches, in the lessons of one seed.

    Attributes:
        count: of demonstrations.
        seed: of the lessons.
        right: accuracy.
        at_random: accuracy when the letters of the demonstrations are drawn at random.
        knowable: accuracy of one who knows the kinds of all words.
    """

    count: int
    seed: int
    right: float
    at_random: float
    knowable: float


def accuracy(graph: gp.Graph, lesson: symbols.Lesson, shown: gp.Demonstrations) -> float:
    """Share of the queries of a lesson that are answered with their letter."""
    task = gp.compile(graph, gp.Program([shown], align=ALIGN))
    with torch.no_grad():
        found = task(**task.encode(lesson.queries)).argmax(1)
    return (found == lesson.answers).float().mean().item()


def measure(graph: gp.Graph, counts: Sequence[int], lessons: int, seed: int) -> list[Row]:
    """A row for every number of demonstrations."""
    generator = random.Random(seed)
    drawn = [symbols.lesson(generator, max(counts)) for _ in range(lessons)]
    rows = []
    for count in track(counts, f"seed {seed}"):
        right = [accuracy(graph, one, one.demonstrations(count)) for one in drawn]
        control = [accuracy(graph, one, one.demonstrations(count, True)) for one in drawn]
        knowable = [one.knowable(count) for one in drawn]
        rows.append(Row(count, seed, *map(statistics.mean, (right, control, knowable))))
    return rows


def table(rows: Sequence[Row]) -> Table:
    """Means over the seeds, with the lowest and the highest."""
    drawn = Table(title="a new mapping of words to letters, taught to a frozen model")
    for name in ("demonstrations", "accuracy", "random letters", "knowable"):
        drawn.add_column(name, justify="right")
    for count in sorted({row.count for row in rows}):
        own = [row for row in rows if row.count == count]
        cells = ([row.right for row in own], [row.at_random for row in own])
        drawn.add_row(
            str(count),
            *map(reporting.span, cells),
            f"{statistics.mean(row.knowable for row in own):.1%}",
        )
    return drawn


def main(
    model: str | None = None,
    counts: Sequence[int] = COUNTS,
    lessons: int = LESSONS,
    seeds: Sequence[int] = SEEDS,
    outputs: Path = OUTPUTS,
) -> list[Row]:
    """Run everything; the table is also written to ``table.txt``."""
    if model is None and not train.FOLDER.exists():
        train.main()
    outputs.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    graph = language_models.captured(model or train.FOLDER)
    with reporting.frozen(graph):
        rows = [row for seed in seeds for row in measure(graph, counts, lessons, seed)]
    pictures.draw(rows, 1 / len(symbols.LETTERS), outputs / "picture.png")
    queries = (len(symbols.WORDS) - max(counts)) * lessons
    note = (
        f"{model or 'the model of train.py'}: frozen, hash unchanged; seeds {list(seeds)}, each "
        f"{lessons} mappings and {queries} queries; {time.perf_counter() - start:.0f} s; "
        f"files in {outputs}"
    )
    reporting.report(table(rows), note, outputs)
    return rows


if __name__ == "__main__":
    main(reporting.model_argument(__doc__))
