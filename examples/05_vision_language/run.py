"""Three ways to program one frozen CLIP for a domain it has not seen: pixels, tokens, texts.

    python examples/05_vision_language/run.py
    python examples/05_vision_language/run.py --model hf:openai/clip-vit-base-patch32

The model is trained by ``train.py`` where it is not there yet, or is the one that is named. The
table, the picture, a program and an ONNX file go into ``outputs/`` beside this script.
"""

from __future__ import annotations

import dataclasses
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import clip
import images
import pictures
import programs
import torch
import train
from rich.progress import track
from rich.table import Table

import graphprog as gp

sys.path.append(str(Path(__file__).parent.parent))
import reporting

OUTPUTS = Path(__file__).parent / "outputs"
SEEDS = (0, 1, 2)
SHOTS = 16
DELIVERED = "of both"


@dataclasses.dataclass(frozen=True)
class Row:
    """What a method reaches with one seed."""

    method: programs.Method
    seed: int
    trained: int
    validation: float
    test: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Splits:
    """Pictures of the new domain with their digits; no digit is in two of them."""

    train: images.Examples
    validation: images.Examples
    test: images.Examples

    @classmethod
    def drawn(cls, seed: int, shots: int) -> Splits:
        """So many digits of a class train, half as many validate; the test is always the same."""
        parts = images.digits()
        ink, labels = parts["adapt"]
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        own = [order[labels[order] == label] for label in range(len(images.NAMES))]
        rows = torch.cat([some[:shots] for some in own])
        held = torch.cat([some[shots : shots + shots // 2] for some in own])
        test, wanted = parts["test"]
        return cls(
            (images.shifted(ink[rows], 3 * seed + 1), labels[rows]),
            (images.shifted(ink[held], 3 * seed + 2), labels[held]),
            (images.shifted(test, 0), wanted),
        )


def measure(
    graph: gp.Graph, method: programs.Method, splits: Splits, epochs: int, seed: int
) -> tuple[gp.ReprogrammedModel, Row]:
    """Compile a program, train it if there is something to train, and read the test split once."""
    start = time.process_time()
    task = gp.compile(graph, method.program, seed)
    if method.lr:
        gp.fit(
            task,
            splits.train,
            splits.validation,
            epochs=epochs,
            batch_size=32,
            lr=method.lr,
            schedule="cosine",
            seed=seed,
            progress=False,
        )
    validation, test = (
        gp.evaluate(task, some).accuracy for some in (splits.validation, splits.test)
    )
    seconds = time.process_time() - start
    return task, Row(method, seed, task.trained_parameters(), validation, test, seconds)


def at_home(graph: gp.Graph, method: programs.Method) -> float:
    """Accuracy on digits of the test that look as in the source domain."""
    ink, labels = images.digits()["test"]
    shown = images.source(ink, labels, random.Random(0)).pictures
    return gp.evaluate(gp.compile(graph, method.program), (shown, labels)).accuracy


def deliver(task: gp.ReprogrammedModel, test: images.Examples, outputs: Path) -> None:
    """Keep a program, and an ONNX file that takes pictures only."""
    gp.save(task, outputs / "program.safetensors")
    print(gp.backends.onnx.export(task, outputs / "program.onnx", inputs=(test[0][:16],)))


def table(rows: Sequence[Row]) -> Table:
    """Means over the seeds, with the lowest and the highest."""
    drawn = Table(title="one frozen CLIP, digits in a domain that it has not seen")
    for name in ("program", "", "trained", "validation", "test", "seconds"):
        drawn.add_column(name, justify="left" if name in ("program", "") else "right")
    for name in dict.fromkeys(row.method.name for row in rows):
        own = [row for row in rows if row.method.name == name]
        tests = [row.test for row in own]
        drawn.add_row(
            own[0].method.kind,
            name,
            f"{own[0].trained:,}",
            f"{statistics.mean(row.validation for row in own):.1%}",
            reporting.span(tests),
            f"{statistics.mean(row.seconds for row in own):.0f}",
        )
    return drawn


def main(
    model: str | None = None,
    epochs: int = 30,
    shots: int = SHOTS,
    seeds: Sequence[int] = SEEDS,
    outputs: Path = OUTPUTS,
) -> list[Row]:
    """Run everything; the table is also written to ``table.txt``."""
    if model is None and not train.FOLDER.exists():
        train.main()
    outputs.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    source = clip.load(model or train.FOLDER)
    with reporting.frozen(source.graph):
        methods = programs.methods(source)
        rows: list[Row] = []
        for seed in seeds:
            splits = Splits.drawn(seed, shots)
            for method in track(methods, f"seed {seed}"):
                task, row = measure(source.graph, method, splits, epochs, seed)
                rows.append(row)
                if seed == seeds[0] and method.name == DELIVERED:
                    deliver(task, splits.test, outputs)
    pictures.draw(rows, splits.test, outputs / "picture.png")
    note = (
        f"{model or 'the model of train.py'}: frozen, hash unchanged; class names reach "
        f"{at_home(source.graph, methods[0]):.1%} on digits that look as in its training; "
        f"{shots} digits a class train; seeds {list(seeds)}; "
        f"{time.perf_counter() - start:.0f} s; files in {outputs}"
    )
    reporting.report(table(rows), note, outputs)
    return rows


if __name__ == "__main__":
    main(reporting.model_argument(__doc__))
