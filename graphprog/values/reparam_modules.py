"""Modules of reparameterized entries; see :mod:`graphprog.values.reparameterized`."""

from __future__ import annotations

import math

import torch
from torch import nn


class Encoded(nn.Module):
    """Forward: () -> [n, d]."""

    def __init__(
        self, start: torch.Tensor, head: nn.Module, lstm: nn.LSTM | None, residual: bool
    ) -> None:
        super().__init__()
        self.start = nn.Parameter(start.clone())
        self.lstm = lstm
        self.head = head
        self.residual = residual

    def forward(self) -> torch.Tensor:
        """Encode."""
        value: torch.Tensor = self.start
        if self.lstm is not None:
            value = self.lstm(value[None])[0][0]
        value = self.head(value)
        return value + self.start if self.residual else value


class LowRankRows(nn.Module):
    """Forward: () -> [n, d]."""

    def __init__(
        self, start: torch.Tensor, rank: int, scale: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        columns = torch.empty(start.shape[0], rank).normal_(0.0, scale, generator=generator)
        rows = torch.empty(rank, start.shape[1]).normal_(0.0, scale, generator=generator)
        columns[:, 0] += 1
        rows[0] += 1
        self.start = nn.Parameter(start.clone())
        self.columns = nn.Parameter(columns)
        self.rows = nn.Parameter(rows)

    def forward(self) -> torch.Tensor:
        """Scale."""
        return self.start * (self.columns @ self.rows)


class SubspaceRows(nn.Module):
    """Forward: () -> [n, d]."""

    matrix: torch.Tensor
    start: torch.Tensor

    def __init__(
        self, start: torch.Tensor, size: int, scale: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        matrix = torch.empty(start.numel(), size).normal_(0.0, 1.0, generator=generator)
        self.register_buffer("matrix", matrix * (scale / math.sqrt(size)))
        self.register_buffer("start", start.clone())
        self.numbers = nn.Parameter(torch.zeros(size))

    def forward(self) -> torch.Tensor:
        """Spread."""
        return self.start + (self.matrix @ self.numbers).reshape(self.start.shape)
