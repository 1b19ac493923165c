"""``gp.fit`` against the shortest loop that trains the same program.

    python -m benchmarks.fit [threads]

Both take the same steps, in turns, in one process. ``fit`` also checks data and gradients, counts
hits, and hashes the source before and after. The ratio of the medians is what counts.
"""

from __future__ import annotations

import functools
import sys

import torch
from torch import nn
from torch.nn import functional

import graphprog as gp
from benchmarks.turns import machine, side_by_side

BATCH = 64


def network(width: int) -> nn.Module:
    """A small convolutional classifier of 40 classes."""
    layers: list[nn.Module] = []
    for before, after in ((3, width), (width, 2 * width), (2 * width, 2 * width)):
        layers += [nn.Conv2d(before, after, 3, stride=2), nn.ReLU()]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 40))
    return nn.Sequential(*layers, *head).eval()


def bare(task: gp.ReprogrammedModel, images: torch.Tensor, labels: torch.Tensor) -> None:
    """One epoch by hand."""
    optimizer = torch.optim.Adam([p for p in task.parameters() if p.requires_grad], 0.01)
    for index in torch.randperm(len(labels)).split(BATCH):
        loss = functional.cross_entropy(task(images[index]), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else torch.get_num_threads()
    torch.set_num_threads(threads)
    print(machine())
    for width, side, count in ((16, 32, 2048), (32, 64, 1024), (64, 96, 512)):
        torch.manual_seed(0)
        graph = gp.capture(network(width), (torch.rand(2, 3, side, side),))
        program = gp.Program([gp.Additive()], align=gp.RandomMap(10))
        images, labels = torch.rand(count, 3, side, side), torch.arange(count) % 10
        by_hand, fitted = (gp.compile(graph, program) for _ in range(2))
        epochs = {
            "loop": functools.partial(bare, by_hand, images, labels),
            "fit": functools.partial(gp.fit, fitted, (images, labels), epochs=1, batch_size=BATCH),
        }
        loop, fit = side_by_side(epochs).values()
        step = 1e3 * loop * BATCH / count
        print(f"{side:3d}²  step {step:7.1f} ms  fit takes {fit / loop:.2f} × the bare loop")


if __name__ == "__main__":
    main()
