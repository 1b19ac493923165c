"""Models of a few operations, whose graphs are short enough to read before and after a pass."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import graphprog as gp

WORDS, WIDTH, HEADS = 10, 4, 2
HEAD = WIDTH // HEADS

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values [B, heads, S, head size] to the attended values."""


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def bidirectional(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v)


def written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT * HEAD**-0.5).softmax(-1) @ v


def written_out_causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """With the mask of GPT-2's first implementation, which hides by a large number."""
    seen = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).tril()
    return torch.where(seen, q @ k.mT / HEAD**0.5, -1e4).softmax(-1) @ v


def soft_capped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Gemma 2 limits its scores, for which the fused operation has no argument."""
    return ((q @ k.mT / 30).tanh() * 30).softmax(-1) @ v


class Reader(nn.Module):
    """A table of words, one attention, a head. ``keys`` heads of keys serve all of the queries."""

    def __init__(self, attend: Attend = causal, keys: int = HEADS) -> None:
        super().__init__()
        self.attend = attend
        self.keys = keys
        self.table = nn.Embedding(WORDS, WIDTH)
        self.query = nn.Linear(WIDTH, WIDTH, bias=False)
        self.key = nn.Linear(WIDTH, keys * HEAD, bias=False)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.mix(self.table(ids)))

    def mix(self, x: Tensor) -> Tensor:
        q = self.query(x).unflatten(-1, (HEADS, HEAD)).transpose(1, 2)
        k = self.key(x).unflatten(-1, (self.keys, HEAD)).transpose(1, 2)
        if self.keys < HEADS:
            k = k.repeat_interleave(HEADS // self.keys, 1)
        return self.attend(q, k, k).transpose(1, 2).flatten(2)


class Located(Reader):
    """Learned positions, counted for the tokens at hand, from a longer table."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(16, WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        places = self.places(torch.arange(ids.shape[1]))
        return self.head(self.mix(self.table(ids) + places))


class Multiplied(Located):
    """Words looked up by a product, so that no operation says which value holds the tokens."""

    def forward(self, ids: Tensor) -> Tensor:
        words = functional.one_hot(ids, WORDS).float() @ self.table.weight
        return self.head(self.mix(words + self.places(torch.arange(ids.shape[1]))))


class Padded(Reader):
    """A mask says which tokens are there."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.table(ids)
        q = x.unflatten(-1, (HEADS, HEAD)).transpose(1, 2)
        seen = mask[:, None, None].bool()
        y = functional.scaled_dot_product_attention(q, q, q, seen)
        return self.head(y.transpose(1, 2).flatten(2))


class PadByZero(Reader):
    """Tokens of id 0 are padding, which the model finds in the ids."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids) * (ids != 0)[..., None])


class Square(nn.Module):
    """Two tokens, two heads and heads of two entries: no number tells what it counts."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, WIDTH)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, ids: Tensor) -> Tensor:
        batch, length = ids.shape
        x = self.table(ids)
        q = x.view(batch, length, 2, 2).transpose(1, 2)
        y = functional.scaled_dot_product_attention(q, q, q)
        return self.head(y.transpose(1, 2).reshape(batch, length, WIDTH))


class Mixer(nn.Module):
    """A layer over the tokens, which has a weight for each."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, WIDTH)
        self.across = nn.Linear(5, 5)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.across(self.table(ids).mT).mT)


class Compared(nn.Module):
    """Similarities of feature vectors and texts."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, WIDTH)
        self.look = nn.Linear(6, WIDTH)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.look(x) @ self.table(ids).mean(1).T


class ComparedRowByRow(Compared):
    """Similarity of each feature vector and the text of its row."""

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        return (self.look(x) * self.table(ids).mean(1)).sum(1, keepdim=True)


class TwoResults(nn.Module):
    """Logits beside features."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.body(x).relu()
        return {"scores": self.head(hidden), "hidden": hidden}


class Averaged(Reader):
    """Every token also reads the mean of all."""

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        return self.head(self.mix(x) + x.mean(1, keepdim=True))


@dataclasses.dataclass(frozen=True)
class Tiny:
    """A model to build, a call of it, and the axes that vary."""

    build: Callable[[], nn.Module]
    call: dict[str, Tensor]
    axes: dict[str, dict[int, str]] | None = None


def _ids(length: int = 5) -> Tensor:
    return torch.arange(2 * length).reshape(2, length) % WORDS


_TEXT = {"ids": {0: "batch", 1: "sequence"}}
_PADDED = {"ids": _ids(), "mask": torch.ones(2, 5, dtype=torch.int64)}
_COMPARED = {"x": torch.zeros(2, 6), "ids": _ids(4).repeat(2, 1)[:3]}

TINY: dict[str, Tiny] = {
    "reader": Tiny(Reader, {"ids": _ids()}, _TEXT),
    "averaged": Tiny(Averaged, {"ids": _ids()}, _TEXT),
    "located": Tiny(Located, {"ids": _ids()}, _TEXT),
    "grouped": Tiny(functools.partial(Reader, keys=1), {"ids": _ids()}, _TEXT),
    "bidirectional": Tiny(functools.partial(Reader, bidirectional), {"ids": _ids()}, _TEXT),
    "written-out": Tiny(functools.partial(Reader, written_out), {"ids": _ids()}, _TEXT),
    "written-out-causal": Tiny(
        functools.partial(Reader, written_out_causal), {"ids": _ids()}, _TEXT
    ),
    "soft-capped": Tiny(functools.partial(Reader, soft_capped), {"ids": _ids()}, _TEXT),
    "multiplied": Tiny(Multiplied, {"ids": _ids()}, _TEXT),
    "padded": Tiny(Padded, _PADDED, {**_TEXT, "mask": {0: "batch", 1: "sequence"}}),
    "pad-by-zero": Tiny(PadByZero, {"ids": _ids()}, _TEXT),
    "square": Tiny(Square, {"ids": _ids(2)}),
    "mixer": Tiny(Mixer, {"ids": _ids()}),
    "compared": Tiny(Compared, _COMPARED, {"x": {0: "batch"}, "ids": {0: "texts", 1: "length"}}),
    "compared-row-by-row": Tiny(
        ComparedRowByRow,
        {**_COMPARED, "ids": _ids(3)},
        {"x": {0: "batch"}, "ids": {0: "batch"}},
    ),
    "two-results": Tiny(TwoResults, {"x": torch.zeros(2, 6)}),
}


@functools.cache
def tiny(name: str) -> gp.Graph:
    """The graph of a model, which may not be changed."""
    case = TINY[name]
    torch.manual_seed(0)
    model = case.build().eval().requires_grad_(False)
    return gp.capture(model, (), dict(case.call), case.axes)


TENSORS: dict[str, Any] = {
    "texts": torch.tensor([[1, 2, 3], [4, 5, 0], [6, 7, 8]]),
}
"""What passes in golden texts may name."""
