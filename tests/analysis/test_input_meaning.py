"""What an input means, from its uses: each use is an input of one model that is captured once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import graphprog as gp
from graphprog.analysis.input_meaning import inferred_meaning, neutral_entry
from graphprog.ir.graph import Graph
from graphprog.ir.ops import schema_name

ROWS, WIDTH, LENGTH = 12, 8, 5


class Reader(nn.Module):
    """Uses of inputs [B, S] or [B, S, 2]; each adds its input to x [B, S, d]."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(ROWS, WIDTH)
        self.number = nn.Linear(1, WIDTH)
        self.encoder = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True)

    def forward(self, x: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        for name, value in inputs.items():
            x = USES[name][0](self, x, value)
        return x


def _hidden(scores: Tensor, mask: Tensor) -> Tensor:
    return scores.masked_fill(mask, float("-inf"))


def _scores(x: Tensor) -> Tensor:
    return x @ x.mT


Use = Callable[[Reader, Tensor, Tensor], Tensor]

LOOKED_UP: dict[str, Use] = {
    "plain": lambda m, x, s: x + m.table(s),
    "select": lambda m, x, s: x + m.table(s[..., 1]),
    "unbind": lambda m, x, s: x + m.table(s.unbind(-1)[0]) + m.table(s.unbind(-1)[1]),
    "split": lambda m, x, s: x + m.table(s.split(1, -1)[1].squeeze(-1)),
    "transpose": lambda m, x, s: x + m.table(s.transpose(1, 2)[:, 0]),
    "clamp": lambda m, x, s: x + m.table(s.clamp(0, 3)),
    "shifted": lambda m, x, s: x + m.table(s + 1),
    "weight": lambda m, x, s: x + m.table.weight[s],
    "gathered": lambda m, x, s: x + m.table.weight.index_select(0, s.flatten()).view(x.shape),
    "extent": lambda m, x, s: x + m.table((s[..., 1] - s[..., 0]).abs()),
    "one_hot": lambda m, x, s: x + nn.functional.one_hot(s, WIDTH),
    "padded": lambda m, x, s: (x + m.table(s)) * (s != 0)[..., None],
    "from_one": lambda m, x, s: x + m.table(s - 1),
    "flag": lambda m, x, s: x + m.table(s.bool().long()) + m.table(s),
}
MASKS: dict[str, Use] = {
    "additive": lambda m, x, s: (_scores(x) + (1 - s[:, None].float()) * -1e9).softmax(-1) @ x,
    "moved": lambda m, x, s: (_scores(x) + (s[:, None].float() - 1) * 1e9).softmax(-1) @ x,
    "boolean": lambda m, x, s: _hidden(_scores(x), ~s[:, None].bool()).softmax(-1) @ x,
    "equal": lambda m, x, s: _hidden(_scores(x), s[:, None] == 0).softmax(-1) @ x,
    "factor": lambda m, x, s: x * s[..., None],
    "counted": lambda m, x, s: x + m.table(s.cumsum(1) * s),
    "slopes": lambda m, x, s: (
        (  # of BLOOM's attention
            _scores(x) + torch.tensor(0.5) * ((s.cumsum(1) - 1) * s)[:, None]
        ).softmax(-1)
        @ x
    ),
    "pooled": lambda m, x, s: x + s[:, None].float() @ x / s.sum(1)[:, None, None],
}
HIDING: dict[str, Use] = {
    "key_padding": lambda m, x, s: m.encoder(x, src_key_padding_mask=s.bool()),
    "zeroed": lambda m, x, s: x.masked_fill(s[..., None].bool(), 0),
    "negative": lambda m, x, s: (_scores(x) + s[:, None].float() * -1e9).softmax(-1) @ x,
}
UNCLEAR: dict[str, Use] = {
    "number": lambda m, x, s: x + m.number(s[..., None].float()),
    "added": lambda m, x, s: x + s[..., None].float(),
    "rotary": lambda m, x, s: x * (s[..., None].float() * torch.arange(1.0, WIDTH + 1)).sin(),
    "together": lambda m, x, s: _hidden(_scores(x), s[:, :, None] != s[:, None]).softmax(-1) @ x,
    "special": lambda m, x, s: x * (s == 7)[..., None],
    "segment": lambda m, x, s: torch.zeros(4, WIDTH).index_add(0, s[0], x[0])[None, :1] + x,
    "pointer": lambda m, x, s: x.gather(1, s[..., None].expand(x.shape)),
    "type_or_mask": lambda m, x, s: (x + m.table(s)) * s[..., None],
    "both": lambda m, x, s: x * s[..., None] + 2 * x.masked_fill(s[..., None].bool(), 0),
}
USES: dict[str, tuple[Use, str]] = {
    **{name: (use, "zero") for name, use in LOOKED_UP.items()},
    **{name: (use, "present") for name, use in MASKS.items()},
    **{name: (use, "zero") for name, use in HIDING.items()},
    **{name: (use, "") for name, use in UNCLEAR.items()},
}
PAIRS = ("select", "unbind", "split", "transpose", "extent")


@cache
def captured() -> Graph:
    torch.manual_seed(0)
    plain, pairs = torch.ones(2, LENGTH).long(), torch.ones(2, LENGTH, 2).long()
    inputs = {name: (pairs if name in PAIRS else plain).clone() for name in USES}
    model = Reader().eval().requires_grad_(False)
    return gp.capture(model, (torch.randn(2, LENGTH, WIDTH), inputs))


@pytest.mark.parametrize("name", USES)
def test_the_uses_of_an_input_say_what_it_means(name: str) -> None:
    node = captured().placeholders[1 + list(USES).index(name)]
    found = inferred_meaning(node)
    assert found.role == USES[name][1], found


@pytest.mark.parametrize(
    ("name", "operation"),
    [("number", "linear"), ("together", "ne"), ("segment", "index_add"), ("pointer", "gather")],
)
def test_the_operation_that_is_unclear_is_named(name: str, operation: str) -> None:
    unclear = inferred_meaning(captured().placeholders[1 + list(USES).index(name)]).unclear
    assert unclear is not None
    assert schema_name(unclear) == f"aten::{operation}"


@pytest.mark.parametrize(("name", "entry"), [("plain", 0), ("padded", 1), ("from_one", 1)])
def test_a_new_id_has_a_row_and_is_not_padding(name: str, entry: int) -> None:
    node = captured().placeholders[1 + list(USES).index(name)]
    assert neutral_entry(node, "zero") == entry
