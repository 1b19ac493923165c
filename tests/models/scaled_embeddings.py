"""A model that scales the tokens it looks up, and adds positions."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

import graphprog as gp

AXES = {"ids": {0: "batch", 1: "length"}}
VOCABULARY = 40


class Scaled(nn.Module):
    """Looks ids up, scales them, adds positions, and mixes; as models of several families do."""

    def __init__(self, scale: float = 4.0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.scale = scale
        self.table = nn.Embedding(VOCABULARY, 16, dtype=dtype)
        self.positions = nn.Embedding(64, 16, dtype=dtype)
        self.scaled = nn.Identity()
        self.mix = nn.Linear(16, 16, dtype=dtype)
        self.head = nn.Linear(16, 3, dtype=dtype)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.scaled(self.table(ids) * self.scale)
        x = x + self.positions(torch.arange(ids.shape[1], device=ids.device))
        x = self.mix(x).tanh()
        if mask is not None:
            return self.head((x * mask[..., None].to(x.dtype)).sum(1))
        return self.head(x)


def model_of(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return Scaled(**options).eval().requires_grad_(False)


@functools.cache
def captured(
    dtype: torch.dtype = torch.float32, masked: bool = False
) -> tuple[nn.Module, gp.Graph]:
    model = model_of(dtype=dtype)
    kwargs: dict[str, Any] = {"ids": torch.randint(0, VOCABULARY, (2, 5))}
    if masked:
        kwargs["mask"] = torch.ones(2, 5, dtype=torch.int64)
    axes = dict.fromkeys(kwargs, AXES["ids"])
    return model, gp.capture(model, (), kwargs, dynamic_axes=axes)
