"""Training that runs the frozen part once per sample, beside the loop that runs it in every epoch.

    python benchmarks/reuse.py

A transformer of 12 blocks of width 384 on 128 images of 64×64: a linear head for 20 epochs, and a
vector that is added to the input of block 9 for 10 epochs. The loops are plain PyTorch, and run
what needs no gradient under ``no_grad``. Processor time of whole runs on one thread, in turns in
one process; ``fit`` includes its choice of what to keep, its pass over the data and its checks.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional
from turns import machine

import graphprog as gp

SAMPLES, BATCH, WIDTH = 128, 16, 384


def network() -> nn.Module:
    """A vision transformer of the library timm, with random weights."""
    import timm

    torch.manual_seed(0)
    made: nn.Module = timm.create_model("vit_small_patch16_224", img_size=64, num_classes=10)
    return made.eval().requires_grad_(False)


def loop(
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    parameters: list[nn.Parameter],
    data: tuple[torch.Tensor, torch.Tensor],
    epochs: int,
) -> None:
    """Train by hand."""
    optimizer = torch.optim.Adam(parameters, 0.01)
    for _ in range(epochs):
        for index in torch.randperm(SAMPLES).split(BATCH):
            loss = loss_of(data[0][index], data[1][index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def head_loop(model: nn.Module, data: tuple[torch.Tensor, torch.Tensor], epochs: int) -> None:
    """Train a linear head on the features of a model."""
    head = nn.Linear(WIDTH, 10)

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            features = model.forward_head(model.forward_features(images), pre_logits=True)
        return functional.cross_entropy(head(features), labels)

    loop(loss_of, list(head.parameters()), data, epochs)


def inside_loop(model: nn.Module, data: tuple[torch.Tensor, torch.Tensor], epochs: int) -> None:
    """Train a vector that is added to the input of block 9."""
    vector = nn.Parameter(torch.zeros(WIDTH))

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            hidden = model.norm_pre(model._pos_embed(model.patch_embed(images)))
            hidden = model.blocks[:9](hidden)
        logits = model.forward_head(model.norm(model.blocks[9:](hidden + vector)))
        return functional.cross_entropy(logits, labels)

    loop(loss_of, [vector], data, epochs)


def processor_time(call: Callable[[], object]) -> float:
    """Seconds that the processor spent on one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    print(machine())
    model = network()
    data = torch.rand(SAMPLES, 3, 64, 64), torch.arange(SAMPLES) % 10
    graph = gp.capture(model, (data[0][:2],))
    vector = gp.Additive(at="blocks.9:in", value=gp.Learnable(shape=(WIDTH,)))
    jobs = {
        "head": (gp.Program(align=gp.LinearHead(10, at="features")), head_loop, 20),
        "block 9": (gp.Program([vector]), inside_loop, 10),
    }
    for name, (program, by_hand, epochs) in jobs.items():
        task = gp.compile(graph, program)
        settings = {"epochs": epochs, "batch_size": BATCH, "progress": False}
        calls = {
            "loop": functools.partial(by_hand, model, data, epochs),
            "memory": functools.partial(gp.fit, task, data, reuse="memory", **settings),
            "disk": functools.partial(gp.fit, task, data, reuse="disk", **settings),
        }
        times = {kind: processor_time(call) for kind, call in calls.items()}
        ratios = {kind: f"{times['loop'] / seconds:.2f}" for kind, seconds in times.items()}
        print(f"{name}, {epochs} epochs: {times['loop']:.1f} s by hand; times as fast:", ratios)


if __name__ == "__main__":
    main()
