"""The programs that are compared: one pixel pattern, read in five ways, and two baselines."""

from __future__ import annotations

import dataclasses
import math

import torch
from data import CLASSES, Target

import graphprog as gp
from graphprog.alignments import StatisticalAlignment

CANVAS = 64
SOURCE_RANGE = {"mean": 127 / 255, "std": 128 / 255}


@dataclasses.dataclass(frozen=True)
class Method:
    """A program and how long it is trained."""

    name: str
    program: gp.Program
    epochs: int
    lr: float

    @property
    def counted(self) -> bool:
        """Whether the alignment is a statistical map."""
        return isinstance(self.program.align, StatisticalAlignment)


def methods(target: Target, epochs: int) -> list[Method]:
    """The five methods of the table, trained alike."""
    maps = {
        "random map": gp.RandomMap(CLASSES, seed=0),
        "frequency map": gp.FrequencyMap(CLASSES),
        "iterative map": gp.IterativeMap(CLASSES, collect="epoch"),
        "Bayesian map": gp.BayesianMap(CLASSES, collect="epoch"),
        "linear on logits": gp.LinearHead(CLASSES),
    }
    pattern = gp.Additive(at="input", name="pattern")
    return [
        Method(name, _program(target, align, pattern), epochs, target.lr)
        for name, align in maps.items()
    ]


def random_programs(target: Target, seed: int) -> list[Method]:
    """A pattern of noise that is never trained, under each map that is counted."""
    noise = 0.5 * torch.randn(3, CANVAS, CANVAS, generator=torch.Generator().manual_seed(seed))
    pattern = gp.Additive(at="input", value=gp.Fixed(noise), name="pattern")
    maps = (gp.FrequencyMap(CLASSES), gp.BayesianMap(CLASSES))
    return [
        Method("baseline: random program", _program(target, align, pattern), 1, lr=0.0)
        for align in maps
    ]


def featured(target: Target) -> gp.Program:
    """No pattern: the placed image, and a head that reads its features."""
    return _program(target, gp.LinearHead(CLASSES, at="features"))


def _program(target: Target, align: gp.Alignment, *patterns: gp.Additive) -> gp.Program:
    place = gp.ResizePad(shape=target.shape, size=target.side, fill=(0.0,))
    contract = gp.Contract(space="normalized", labels=target.labels, **SOURCE_RANGE)
    return gp.Program([place, *patterns], align=align, contract=contract)


def one_cycle(progress: float) -> float:
    """Up from a tenth for 30 % of the steps, then half a cosine down to nothing."""
    if progress < 0.3:
        return 0.1 + 0.9 * progress / 0.3
    return 0.5 * (1 + math.cos(math.pi * (progress - 0.3) / 0.7))
