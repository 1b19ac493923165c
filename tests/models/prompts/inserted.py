"""Entries to insert, and what a model of the same sequence written longer computes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.errors import GraphprogError
from graphprog.ir.graph import Graph
from tests.models.prompts.masks import MASKED
from tests.models.prompts.shapes import SHAPED

PLAIN = SHAPED + MASKED
"""Models without further inputs; every one can be lengthened."""


AT = "place:out"
VARYING = {"ids": {0: "batch", 1: "sequence"}}
OFFSETS = (0, 1, 3, -1)


def entries(length: int, width: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(length, width, generator=torch.Generator().manual_seed(seed))


def joined(x: Tensor, new: Tensor, offset: int) -> Tensor:
    """The reference: a sequence with entries between its own."""
    offset = x.shape[1] if offset == -1 else offset
    return torch.cat([x[:, :offset], new.expand(len(x), -1, -1), x[:, offset:]], 1)


def told(error: GraphprogError) -> str:
    """The text of a refusal, which is no crash."""
    text = str(error)
    assert "defect" not in text, text
    return text


def compiled(graph: Graph, new: Tensor, offset: int, **options: object) -> nn.Module:
    part = gp.Concatenative(at=AT, length=len(new), offset=offset, value=gp.Fixed(new), **options)
    return gp.compile(graph, gp.Program([part]))


def inserted(new: Tensor, offset: int):
    """A change of a value [B, S, d] for the eager reference."""

    def change(x: Tensor) -> Tensor:
        at = x.shape[1] if offset == -1 else offset
        return torch.cat([x[:, :at], new.expand(len(x), -1, -1), x[:, at:]], 1)

    return change


def part(at: str, new: Tensor, offset: int, **options: object) -> gp.Concatenative:
    return gp.Concatenative(at=at, length=len(new), offset=offset, value=gp.Fixed(new), **options)
