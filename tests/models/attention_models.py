"""Attention written out by hand, in the forms in which models do it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.models.prefix_models import presence

HEADS, HEAD = 4, 8
WIDTH = HEADS * HEAD
SMALLEST = torch.finfo(torch.float32).min

Weigh = Callable[[Any, Tensor, Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values [B, H, T, d] and presence [B, T] to the attended values."""


def causal(length: int) -> Tensor:
    """Where a query may look."""
    return torch.ones(length, length, dtype=torch.bool).tril()


def _plain(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return (q @ k.mT / math.sqrt(HEAD)).softmax(-1) @ v


def _added(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    hidden = (1 - mask[:, None, None].float()) * SMALLEST
    scores = hidden + (q * HEAD**-0.5) @ k.transpose(2, 3)
    scores = scores + model.bias[None, :, None, None]
    return functional.softmax(scores, -1) @ v


def _subtracted(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = torch.matmul(q, k.permute(0, 1, 3, 2)) - 1e9 * (1 - mask[:, None, None].float())
    return (scores * model.factor + 1.5).softmax(3) @ v


def _filled(number: float) -> Weigh:
    def weigh(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        scores = q @ k.transpose(-1, -2) * HEAD**-0.5
        seen = causal(q.shape[2])[None, None] & (mask[:, None, None] > 0)
        seen = seen | torch.eye(q.shape[2], dtype=torch.bool)
        return scores.masked_fill(~seen, number).softmax(-1) @ v

    return weigh


def _all_hidden(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = q @ k.transpose(-1, -2) + (1 - mask[:, None, None].float()) * SMALLEST
    scores = scores.masked_fill(~causal(q.shape[2]), SMALLEST)
    return scores.softmax(-1) @ v


def _classic(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = torch.where(causal(q.shape[2]), q @ k.mT / HEAD**0.5, -1e4)
    return scores.masked_fill(mask[:, None, None] == 0, -1e4).softmax(-1) @ v


def _where(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = torch.where(causal(q.shape[2]), q @ k.mT, model.smallest)
    return torch.where(mask[:, None, None] == 0, -torch.inf, scores).softmax(-1) @ v


def _cast(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = (q @ k.mT).double() + torch.where(causal(q.shape[2]), 0.0, -1e30)
    return scores.softmax(-1, dtype=torch.float64).to(q.dtype).contiguous() @ v


def _folded(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    batch, _, length, _ = q.shape
    q, k, v = (part.reshape(batch * HEADS, length, HEAD) for part in (q, k, v))
    hidden = (mask == 0).repeat_interleave(HEADS, 0)[:, None]
    scores = torch.bmm(q, k.transpose(1, 2)) / HEAD**0.5
    weights = scores.masked_fill(hidden, SMALLEST).softmax(2)
    return torch.bmm(weights, v).view(batch, HEADS, length, HEAD)


def _biased(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    batch, _, length, _ = q.shape
    q, k, v = (part.reshape(batch * HEADS, length, HEAD) for part in (q, k, v))
    bias = model.bias[:, None, None] * (mask.cumsum(-1) - 1)[:, None, None]
    bias = bias.reshape(batch * HEADS, 1, length)
    scores = bias.baddbmm(q, k.transpose(1, 2), beta=0.5, alpha=HEAD**-0.5)
    scores = scores.view(batch, HEADS, length, length).masked_fill(~causal(length), SMALLEST)
    weights = scores.softmax(-1).view(batch * HEADS, length, length)
    return torch.bmm(weights, v).view(batch, HEADS, length, HEAD)


def _grouped(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    batch, _, length, _ = q.shape
    k, v = (
        part[:, :2, None].expand(-1, -1, 2, -1, -1).reshape(batch, HEADS, length, HEAD)
        for part in (k, v)
    )
    return (q @ k.mT).masked_fill(~causal(length), -torch.inf).softmax(-1) @ v


def _one_key(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return (q @ k[:, :1].mT).softmax(-1) @ v[:, :1]


def _one_head(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = torch.bmm(q[:, 0], k[:, 0].mT) + causal(q.shape[2]).float().log()[None]
    return torch.bmm(scores.softmax(-1), v[:, 0])[:, None].expand(-1, HEADS, -1, -1)


MATCHED: dict[str, Weigh] = {
    "plain": _plain,
    "added": _added,
    "subtracted": _subtracted,
    "filled with the smallest": _filled(SMALLEST),
    "filled with -inf": _filled(-torch.inf),
    "filled with -1e9": _filled(-1e9),
    "rows without a key": _all_hidden,
    "rows without a key, of -1e4": _classic,
    "where": _where,
    "cast": _cast,
    "folded": _folded,
    "biased": _biased,
    "grouped": _grouped,
    "one key head": _one_key,
    "one head": _one_head,
}
"""Forms that are attention."""


def _capped(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return ((q @ k.mT / 30).tanh() * 30).softmax(-1) @ v


def _returned(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    weights = (q @ k.mT).softmax(-1)
    return weights @ v + weights.sum(-1, keepdim=True)


def _mixed(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    weights = (q @ k.mT).softmax(-1)
    return torch.einsum("hg,bgts->bhts", model.mix, weights) @ v


def _dropped(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return functional.dropout((q @ k.mT).softmax(-1), 0.5, training=True) @ v


def _queries(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return (q @ k.mT).softmax(-2) @ v


def _weak(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = torch.where(causal(q.shape[2]), q @ k.mT, -1e4)
    return (scores + (1 - mask[:, None, None].float()) * SMALLEST).softmax(-1) @ v


def _shared(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = q @ k.mT
    return scores.softmax(-1) @ v + scores.sum(-1, keepdim=True)


def _tempered(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return (q @ k.mT * model.bias[:, None, None]).softmax(-1) @ v


def _heads_first(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    batch, _, length, _ = q.shape
    q, k, v = (part.transpose(0, 1).reshape(-1, length, HEAD) for part in (q, k, v))
    attended = torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v)
    return attended.view(HEADS, batch, length, HEAD).transpose(0, 1)


def chained(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """The keys and values of the second attention are what the first returns."""
    first = (q @ k.mT).softmax(-1) @ v
    return (q @ first.mT).softmax(-1) @ first


def parallel(model: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """The first softmax is the last to be multiplied with values."""
    hidden = (1 - mask[:, None, None].float()) * SMALLEST
    first, second = (q @ k.mT + hidden).softmax(-1), (k @ q.mT + hidden).softmax(-1)
    other = second @ v
    return first @ v + other


LEFT: dict[str, tuple[Weigh, str]] = {
    "capped": (_capped, r"found softmax.int, mul.Tensor; .*no counterpart: tanh"),
    "returned": (_returned, r"found softmax.int, matmul; .*returned, or used beside"),
    "mixed": (_mixed, r"found softmax.int, matmul; .*not multiplied with values next: einsum"),
    "dropped": (_dropped, r"not multiplied with values next: dropout"),
    "over queries": (_queries, r"found nothing; .*dimension -2, not the last"),
    "weak mask": (_weak, r"replaced by -10000, which hides too little: where.Scalar"),
    "scores used": (_shared, r"found softmax.int; .*read by other operations as well: matmul"),
    "heads in front": (
        _heads_first,
        r"number of heads folded into the batch cannot be",
    ),
    "own factor of a head": (_tempered, r"no counterpart: mul.Tensor"),
}
"""Forms that are not, or not to be rewritten, and what is said of them."""


class Written(nn.Module):
    """A model of one attention."""

    def __init__(self, weigh: Weigh) -> None:
        super().__init__()
        self.weigh = weigh
        self.project = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.bias = nn.Parameter(torch.linspace(0.1, 0.7, HEADS))
        self.mix = nn.Parameter(torch.randn(HEADS, HEADS))
        self.register_buffer("factor", torch.tensor(0.3))
        self.register_buffer("smallest", torch.tensor(SMALLEST))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, length, _ = x.shape
        parts = self.project(x).view(batch, length, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)
        attended = self.weigh(self, parts[0], parts[1], parts[2], mask)
        return self.out(attended.transpose(1, 2).reshape(batch, length, WIDTH))


def inputs(batch: int, length: int) -> tuple[Tensor, Tensor]:
    """Vectors, and which of them are there."""
    generator = torch.Generator().manual_seed(length)
    return torch.randn(batch, length, WIDTH, generator=generator), presence(batch, length)
