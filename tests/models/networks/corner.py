"""Small hand-written networks over sequences, and with two towers."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

import graphprog as gp


class Tied(nn.Module):
    """The table of tokens is also the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(100, 8)
        self.body = nn.Linear(8, 8)
        self.head = nn.Linear(8, 100, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.body(self.table(ids))).mean(1))


class Rotary(nn.Module):
    """Positions computed without gradients inside of forward."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rates", torch.linspace(0.1, 1.0, 4), persistent=False)
        self.body = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5)

    @torch.no_grad()
    def angles(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angle = torch.arange(x.shape[1]).float()[:, None] * self.rates
        return angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cos, sin = self.angles(x)
        y = self.body(x)
        return self.head((y * cos + y.roll(4, -1) * sin).mean(1))


class NestedRegions(Rotary):
    """Disabled autocast inside of no-grad, as rotary embeddings have it."""

    @torch.no_grad()
    def angles(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(device_type="cpu", enabled=False):
            angle = torch.arange(x.shape[1]).float()[:, None] * self.rates
            cos, sin = angle.cos(), angle.sin()
        return cos.repeat(1, 2), sin.repeat(1, 2)


class Layer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        read = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.project(read.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Module):
    """Transformer over token ids with a padding mask."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(100, 16)
        self.positions = nn.Embedding(32, 16)
        self.layers = nn.ModuleList(Layer(16, 2) for _ in range(3))
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 5)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x = self.table(input_ids) + self.positions(torch.arange(input_ids.shape[1]))
        mask = attention_mask[:, None, None, :].bool()
        for layer in self.layers:
            x = layer(x, mask=mask)
        return self.head(self.norm(x)[:, 0])


class Mixing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.relu(self.inner(x))


class Tower(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.stem = nn.Linear(8, 8)
        self.blocks = nn.ModuleList(Mixing() for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x


class TwoTowers(nn.Module):
    """Two encoders whose outputs are compared."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = Tower(2)
        self.text = Tower(3)

    def forward(self, image: torch.Tensor, caption: torch.Tensor) -> torch.Tensor:
        return self.vision(image) @ self.text(caption).T


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 8, num_layers=2, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(x)
        return self.head(states[:, -1])


class Towers(nn.Module):
    """Two towers, of which the second is computed later."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.second = nn.Sequential(nn.Linear(8, 6), nn.Tanh())
        self.head = nn.Linear(14, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        y = self.second(y)
        return self.head(torch.cat([x, y], -1))


def towers() -> tuple[nn.Module, gp.Graph, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    model = Towers().eval().requires_grad_(False)
    example = (torch.randn(2, 8), torch.randn(2, 8))
    return model, gp.capture(model, example), (torch.randn(5, 8), torch.randn(5, 8))
