"""Row 12: a training step, beside twice the forward run of the same graph.

    python -m benchmarks.rows.step [--device cuda] [--tiny]

The bound is that of gradients by values alone: as many products backward as forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.nn import functional

import graphprog as gp
from benchmarks.table.records import OURS, Ask, Record, Row, Setting, record
from benchmarks.table.script import main
from benchmarks.turns import in_turns
from benchmarks.works.images import captured, images, resnet50, vit_base
from benchmarks.works.soft_prompts import Size, Source, words_loss
from benchmarks.works.steps import Loss, step

ROW = Row(
    12,
    "step against 2 × forward of the same graph",
    "2 × forward",
    tuple(
        Ask(name, 1.15, least=False)
        for name in (
            "ViT-B/16 size, pattern on images",
            "ResNet-50, pattern on images",
            "GPT-2 small size, soft prompt, 8 × 64 + 20",
        )
    ),
    gpu=True,
)


def works(setting: Setting) -> Iterator[tuple[Loss, list[torch.Tensor]]]:
    """Yield the loss of each graph, and what is trained."""
    vit = vit_base(setting)
    rows = 2 if setting.tiny else 32 if setting.cuda else 4
    for model, side in (
        (vit, vit.patch_embed.img_size[0]),
        (resnet50(), 32 if setting.tiny else 224),
    ):
        graph = gp.optimize(captured(model, side, setting))
        task = gp.compile(graph, gp.Program([gp.Additive()])).to(setting.device).train()
        yield pixels_loss(task, rows, side, setting.device), list(task.program.parameters())
    source = Source(setting)
    size = Size(2, 8, 3) if setting.tiny else Size(8, 64, 20)
    task = source.task(size.prompt, words=True)
    yield words_loss(source, size, task), list(task.program.parameters())


def pixels_loss(task: gp.ReprogrammedModel, rows: int, side: int, device: str) -> Loss:
    """Return the loss of a batch of images."""
    pixels, labels = (one.to(device) for one in images(rows, side))
    return lambda: functional.cross_entropy(task(pixels), labels)


def forward(loss: Loss) -> Callable[[], None]:
    """Return a call that runs the graph of the training step without gradients."""

    @torch.no_grad()
    def run() -> None:
        loss()

    return run


def measure(setting: Setting) -> list[Record]:
    """Measure every graph."""
    found = []
    for ask, (loss, trained) in zip(ROW.asks, works(setting), strict=True):
        calls: dict[str, Callable[[], object]] = {"2 × forward": forward(loss)}
        calls[OURS] = lambda loss=loss, trained=trained: step(loss, trained)
        times = in_turns(calls, setting)
        times["2 × forward"] = [2 * seconds for seconds in times["2 × forward"]]
        found.append(record(ROW, ask, times, setting))
    return found


if __name__ == "__main__":
    main(ROW, measure)
