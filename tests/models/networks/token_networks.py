"""Random networks over tokens: steps on [B, S, D], then what is read of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS, LENGTH = 8, 2, 6


class Attending(nn.Module):
    """Attention written in one of several ways."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.parts, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        split = self.parts(x).view(x.shape[0], x.shape[1], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        query, key, value = split.unbind(0)
        if self.kind == "masked":
            numbers = torch.arange(x.shape[1])
            mask = (numbers[:, None] + 1 >= numbers)[None, None]
            found = F.scaled_dot_product_attention(query, key, value, mask)
        elif self.kind == "hidden":
            numbers = torch.arange(x.shape[1])
            mask = torch.where(numbers[:, None] >= numbers, 0.0, float("-inf")).to(x.dtype)
            found = F.scaled_dot_product_attention(query, key, value, mask[None, None])
        elif self.kind == "written":
            found = (query @ key.transpose(-2, -1) / 2).softmax(-1) @ value
        else:
            found = F.scaled_dot_product_attention(
                query, key, value, is_causal=self.kind == "causal"
            )
        return x + self.out(found.transpose(1, 2).reshape(x.shape))


class Flattened(nn.Module):
    """A layer on flattened positions, as in GPT-2."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.randn(WIDTH, WIDTH)),
            nn.Parameter(torch.ones(WIDTH)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, WIDTH), self.weight).view(x.shape)


class Each(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _gated(x: Tensor) -> Tensor:
    one, other = x.chunk(2, -1)
    return torch.cat([one * other.sigmoid(), other], -1)


STEPS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "norm": lambda: nn.LayerNorm(WIDTH),
    "rms": lambda: Each(lambda x: x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()),
    "gelu": nn.GELU,
    "gated": lambda: Each(_gated),
    "cap": lambda: Each(lambda x: 3 * (x / 3).tanh()),
    "flattened": Flattened,
    "attention": lambda: Attending("plain"),
    "masked": lambda: Attending("masked"),
    "written": lambda: Attending("written"),
    "causal": lambda: Attending("causal"),
    "hidden": lambda: Attending("hidden"),
    "mixing": lambda: Each(lambda x: x - x.mean(1, keepdim=True)),
    "running": lambda: Each(lambda x: x.cumsum(1) / 4),
    "over-tokens": lambda: Each(lambda x: x.softmax(1)),
    "places": lambda: Each(lambda x: x + torch.linspace(0, 1, LENGTH, dtype=x.dtype)[:, None]),
    "swapped": lambda: Each(lambda x: x.transpose(0, 1).sin().transpose(0, 1)),
}


def _rows(x: Tensor) -> Tensor:
    return torch.arange(x.shape[0])


def _place(x: Tensor) -> Tensor:
    return x[..., 0].argmax(1)


READS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "first": lambda x, given: x[:, 0],
    "last": lambda x, given: x[:, -1],
    "stretch": lambda x, given: x[:, 1:4],
    "listed": lambda x, given: x[:, torch.tensor([4, -6, 4])],
    "by-row": lambda x, given: x[_rows(given), _place(given)],
    "by-row-negative": lambda x, given: x[_rows(given), -1 - _place(given)],
    "two-by-row": lambda x, given: x[_rows(given)[:, None], given[..., 1].topk(2).indices],
    "flat-by-row": lambda x, given: x.flatten(0, 1)[_rows(given) * LENGTH + _place(given)],
    "of-its-own": lambda x, given: x[_rows(x), _place(x)],
    "units": lambda x, given: x[..., torch.tensor([1, 5])],
    "nested": lambda x, given: x[_rows(given), _place(given)][:, 2:4],
    "two": lambda x, given: (x[:, 0], x[:, 2]),
    "whole": lambda x, given: (x[:, 0], x.sum()),
    "mean": lambda x, given: x.mean(1),
}


class Tokens(nn.Module):
    """Steps on [B, S, D], residual where a number says so, then what is read."""

    def __init__(self, steps: list[tuple[str, bool]], read: str) -> None:
        super().__init__()
        self.parts = nn.ModuleList(STEPS[kind]() for kind, _ in steps)
        self.residual = [residual for _, residual in steps]
        self.read = READS[read]

    def forward(self, given: Tensor) -> object:
        x = given
        for part, residual in zip(self.parts, self.residual, strict=True):
            x = x + part(x) if residual else part(x)
        return self.read(x, given)


@st.composite
def token_networks(draw: st.DrawFn) -> Tokens:
    kinds = st.tuples(st.sampled_from(sorted(STEPS)), st.booleans())
    steps = draw(st.lists(kinds, min_size=1, max_size=6))
    torch.manual_seed(draw(st.integers(0, 5)))
    return Tokens(steps, draw(st.sampled_from(sorted(READS)))).double().eval()
