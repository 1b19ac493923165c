"""A frozen source, data and programs for the tests of training."""

from __future__ import annotations

import functools
import os
import signal

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import graphprog as gp

Tensors = tuple[torch.Tensor, torch.Tensor]


class Source(nn.Module):
    """A CNN of 12 classes on gray images of 10 by 10, with statistics that training could move."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.body = nn.Conv2d(8, 16, 3)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(64, 12)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.stem(images)).relu()
        return self.head(self.drop(self.body(hidden).relu().flatten(1)))


def make_source() -> Source:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Source().eval()


@functools.cache
def graph() -> gp.Graph:
    return gp.capture(make_source(), (torch.rand(2, 1, 10, 10),))


@functools.cache
def digits() -> dict[str, Tensors]:
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(data.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images, labels = images[order], labels[order]
    cuts = {"train": slice(0, 200), "validation": slice(200, 300), "test": slice(300, 400)}
    return {name: (images[cut], labels[cut]) for name, cut in cuts.items()}


UNIT = gp.Contract(space="unit", mean=0.5, std=0.5)
FRAME = (
    gp.ResizePad((1, 8, 8)),
    gp.Additive(at="input", value=gp.Learnable("normal", 0.1), mask=gp.masks.border(inner=8)),
)


def framed(align: gp.Alignment) -> gp.ReprogrammedModel:
    """A trained frame around the digit, and an alignment."""
    return gp.compile(graph(), gp.Program(FRAME, align=align, contract=UNIT))


def headed(seed: int = 0) -> gp.ReprogrammedModel:
    """A trained frame and a linear head on the features."""
    align = gp.LinearHead(10, at="features")
    return gp.compile(graph(), gp.Program(FRAME, align=align, contract=UNIT), seed)


def same_state(left: gp.ReprogrammedModel, right: gp.ReprogrammedModel) -> bool:
    one, two = left.program_state(), right.program_state()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


_calls = 0


def deadly_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy that kills its process at the call number given in the environment."""
    global _calls
    _calls += 1
    if str(_calls) == os.environ.get("DEADLY_CALL"):
        os.kill(os.getpid(), signal.SIGKILL)
    return functional.cross_entropy(logits, labels)
