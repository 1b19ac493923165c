"""The tree of interfaces."""

from __future__ import annotations

import torch
from torch import nn

import graphprog as gp
from graphprog.cli.tree import interface_tree


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(8, width)
        self.outer = nn.Linear(width, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.outer(self.inner(x).relu())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"layers": nn.ModuleList(map(Block, (4, 4, 4, 6)))})
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.body["layers"]:
            x = layer(x)
        return self.head(x)


def test_equal_modules_are_folded_and_others_are_not() -> None:
    graph = gp.capture(Net().eval(), (torch.zeros(2, 8),))
    assert interface_tree(graph).splitlines() == [
        "Net",
        "├─ input:x  (input) f32[B,8]",
        "├─ body.layers",
        "│  ├─ 0–2 ×3  in (embedding), out (hidden[0–2]) f32[B,8]",
        "│  │  ├─ inner  in f32[B,8]; out f32[B,4]",
        "│  │  └─ outer  in f32[B,4]; out f32[B,8]",
        "│  └─ 3  in, out (hidden[3]) f32[B,8]",
        "│     ├─ inner  in f32[B,8]; out f32[B,6]",
        "│     └─ outer  in f32[B,6]; out f32[B,8]",
        "├─ head  in (features) f32[B,8]; out f32[B,3]",
        "└─ output:logits  (logits) f32[B,3]",
    ]
