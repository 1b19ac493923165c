"""Where an image classifier looks, what it knows by depth, and what a border changes inside.

    python examples/09_look_inside_an_image_classifier/run.py

Tables and picture go into ``outputs/`` beside this script.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import classifier
import pictures
import torch
from rich.progress import track
from rich.table import Table
from torch.nn import functional

import graphprog as gp

sys.path.append(str(Path(__file__).parent.parent))
import reporting

OUTPUTS = Path(__file__).parent / "outputs"
SEEDS = (0, 1, 2)
BLOCKS = "hidden[*]"
PROBED = tuple(f"hidden[{number}]" for number in (0, 2, 4, 8, 10, 13, 15))
LOOKED = "hidden[10]"
"""The last value with more than 3×3 places, of 5×5."""

BLANKED = 16
"""So many of a digit's 64 pixels are made white."""

COMPARED = 120
"""Test images on which models are compared."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A trained program and its accuracy.

    Attributes:
        task: the compiled model.
        validation: accuracy by which the epoch was chosen.
        test: accuracy on the test split.
    """

    task: gp.ReprogrammedModel
    validation: float
    test: float


@dataclasses.dataclass(frozen=True)
class Probed:
    """Linear probes of one model.

    Attributes:
        probes: cross-validated on the training split.
        test: accuracy on the test split, by interface.
    """

    probes: gp.instruments.Probes
    test: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Blanked:
    """Accuracy when pixels of each digit are made white, by which pixels."""

    none: float
    most: float
    random: float
    least: float


def trained(graph: gp.Graph, data: dict[str, classifier.Split], epochs: int, seed: int) -> Program:
    """Train the border; the validation split chooses the epoch, the test split is read once."""
    task = gp.compile(graph, classifier.program(), seed=seed)
    history = gp.fit(
        task, data["train"], data["validation"], epochs=epochs, batch_size=32, lr=0.1, seed=seed
    )
    accuracy = gp.evaluate(task, data["test"]).accuracy
    return Program(task, history.best.validation_accuracy or 0.0, accuracy)


def shuffled(graph: gp.Graph, task: gp.ReprogrammedModel, seed: int = 0) -> gp.ReprogrammedModel:
    """The same program with the values of its border in random order."""
    state = {name: value.clone() for name, value in task.program_state().items()}
    (name,) = (one for one in state if classifier.BORDER in one)
    acts = gp.masks.border(inner=classifier.SIDE).tensor(tuple(state[name].shape)).bool()
    values = state[name][acts]
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
    state[name][acts] = values[order]
    other = gp.compile(graph, classifier.program())
    other.load_program_state(state)
    return other


def probed(task: gp.ReprogrammedModel, data: dict[str, classifier.Split]) -> Probed:
    """Probe the means over all places after some blocks, and apply the probes to the test split."""
    with tempfile.TemporaryDirectory() as folder:
        recordings = {
            name: gp.record(task, data[name], PROBED, reduce="mean", to=f"{folder}/{name}")
            for name in ("train", "test")
        }
        probes = gp.probe(recordings["train"], folds=3, strength=0.1)
        found = {}
        for row in probes.rows:
            scores = recordings["test"][row.name].tensor() @ row.weight.T + row.bias
            found[row.name] = float((scores.argmax(1) == data["test"][1]).float().mean())
    return Probed(probes, found)


def looks_at(task: gp.ReprogrammedModel, images: torch.Tensor) -> torch.Tensor:
    """Grad-CAM for the class that is predicted, by pixel of the classifier's input [N, H, W]."""
    maps = torch.cat(
        [gp.instruments.grad_cam(task, (batch,), LOOKED) for batch in images.split(60)]
    )
    shape = (classifier.CANVAS, classifier.CANVAS)
    return functional.interpolate(maps[:, None], shape, mode="bilinear")[:, 0]


def middle(maps: torch.Tensor) -> torch.Tensor:
    """The part of maps [N, H, W] where the digit is."""
    start = (classifier.CANVAS - classifier.SIDE) // 2
    return maps[:, start : start + classifier.SIDE, start : start + classifier.SIDE]


def share_in_digit(maps: torch.Tensor) -> float:
    """Share of Grad-CAM in the middle, as a mean over the images that have any."""
    whole = maps.sum((1, 2))
    shown = whole > 0
    return float((middle(maps).sum((1, 2))[shown] / whole[shown]).mean())


def blanked(
    task: gp.ReprogrammedModel, images: torch.Tensor, labels: torch.Tensor, seed: int
) -> Blanked:
    """Accuracy without the pixels that Grad-CAM finds most and least important, or random ones."""
    maps = functional.adaptive_avg_pool2d(middle(looks_at(task, images))[:, None], 8).flatten(1)
    noise = torch.rand(maps.shape, generator=torch.Generator().manual_seed(seed))

    def accuracy(order: torch.Tensor | None) -> float:
        kept = images.flatten(1).clone()
        if order is not None:
            kept.scatter_(1, order.topk(BLANKED).indices, 1.0)
        return gp.evaluate(task, (kept.reshape(images.shape), labels)).accuracy

    return Blanked(*map(accuracy, (None, maps, noise, -maps)))


def table_of_depth(
    compared: Sequence[gp.instruments.Comparison],
    between: Sequence[gp.instruments.Comparison],
    control: gp.instruments.Comparison,
    probes: dict[str, list[Probed]],
) -> Table:
    """A row for each block: what the borders change there, and what probes read there."""
    drawn = Table(
        title="by depth, without and with the border: mean of the seeds (lowest to highest)"
    )
    for name in (
        *("after block", "cosine", "CKA", "CKA, shuffled", "CKA of two borders"),
        *(f"probe {name}" for name in probes),
    ):
        drawn.add_column(name)
    for number, row in enumerate(compared[0].rows):
        reads = [[p.test[row.name] for p in some if row.name in p.test] for some in probes.values()]
        drawn.add_row(
            row.name,
            span([one.rows[number].cosine for one in compared]),
            span([one.rows[number].cka for one in compared]),
            span([control.rows[number].cka]),
            span([one.rows[number].cka for one in between]),
            *(reporting.span(r) if len(r) > 1 else f"{r[0]:.1%}" if r else "-" for r in reads),
        )
    return drawn


def span(values: Sequence[float | None]) -> str:
    """Mean, lowest and highest."""
    known = [value for value in values if value is not None]
    if len(known) == 1:
        return f"{known[0]:.2f}"
    return f"{statistics.mean(known):.2f} ({min(known):.2f} to {max(known):.2f})"


def table_of_programs(
    programs: Sequence[Program],
    blanks: Sequence[Blanked],
    shares: Sequence[float],
    source_share: float,
) -> Table:
    """A row for each seed: accuracy, where Grad-CAM looks, and what blanking does."""
    drawn = Table(
        title=f"Grad-CAM at {LOOKED}; {BLANKED} of 64 pixels are blanked; "
        f"without a border, {source_share:.0%} of it is in the digit's part"
    )
    for name in (
        *("seed", "validation", "test", "Grad-CAM in the digit's part"),
        *("most important blanked", "random ones", "least important"),
    ):
        drawn.add_column(name)
    for seed, one, blank, share in zip(SEEDS, programs, blanks, shares, strict=True):
        drawn.add_row(
            str(seed),
            *(f"{value:.1%}" for value in (one.validation, one.test, share)),
            *(f"{value:.1%}" for value in (blank.most, blank.random, blank.least)),
        )
    return drawn


def main(
    epochs: int = 3,
    outputs: Path = OUTPUTS,
    load: Callable[[], gp.Graph] = classifier.captured,
    kept: int | None = None,
) -> list[Program]:
    """Run everything; the tables are also written to ``table.txt``.

    Args:
        epochs: of each training.
        outputs: folder for tables and picture.
        load: gives the classifier.
        kept: images of each split that are used; by default all.
    """
    start, used = time.perf_counter(), time.process_time()
    outputs.mkdir(parents=True, exist_ok=True)
    graph = load()
    data = {name: (x[:kept], y[:kept]) for name, (x, y) in classifier.digits().items()}
    images, labels = data["test"]
    with reporting.frozen(graph):
        plain = gp.compile(graph, classifier.program())
        programs = [trained(graph, data, epochs, seed) for seed in track(SEEDS, "training")]
        tasks = [one.task for one in programs]
        control = shuffled(graph, tasks[0])
        few = (images[:COMPARED],)
        compared = [gp.compare(plain, task, few, BLOCKS) for task in (*tasks, control)]
        between = [gp.compare(*two, few, BLOCKS) for two in itertools.combinations(tasks, 2)]
        probes = {
            "without border": [probed(plain, data)],
            "with border": [probed(task, data) for task in tasks],
            "with border shuffled": [probed(control, data)],
        }
        source = gp.compile(graph, dataclasses.replace(classifier.program(), align=gp.Identity()))
        source_maps, *maps = [looks_at(task, images) for task in (source, *tasks)]
        blanks = [blanked(t, images, labels, s) for t, s in zip(tasks, SEEDS, strict=True)]
    pictures.draw(tasks[0], images, labels, source_maps, maps[0], outputs / "picture.png")
    pictures.draw_depth(compared, probes, outputs / "depth.png")
    shares = [share_in_digit(one) for one in maps]
    first = table_of_programs(programs, blanks, shares, share_in_digit(source_maps))
    reporting.report(first, "", outputs, width=130)
    text = (outputs / "table.txt").read_text(encoding="utf-8")
    (before,) = probes["without border"]
    best = before.probes.best
    note = (
        f"best probe by cross-validation, without a border: {best.name}, {best.accuracy:.1%}, "
        f"control {best.control:.1%}, test {before.test[best.name]:.1%}; with the border of seed "
        f"{SEEDS[0]} shuffled, the program has {gp.evaluate(control, data['test']).accuracy:.1%} "
        f"on test; the digit's part is {(classifier.SIDE / classifier.CANVAS) ** 2:.0%} of the "
        f"input; source hash unchanged; {time.perf_counter() - start:.0f} s, "
        f"{time.process_time() - used:.0f} s of the processor"
    )
    second = table_of_depth(compared[:-1], between, compared[-1], probes)
    reporting.report(second, note, outputs, width=190)
    with (outputs / "table.txt").open("a", encoding="utf-8") as file:
        file.write(text)
    return programs


if __name__ == "__main__":
    main()
