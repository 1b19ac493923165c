"""Models that fold, cut, mix and repeat their tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.models.prompts.models import SAME, WIDTH, Prompted, attended, heads_of


class Attention(Prompted):
    """Heads are split from the width."""

    def body(self, x: Tensor) -> Tensor:
        return self.head(x + attended(self.mix(x)))


class HeadsInBatch(Prompted):
    """Heads are folded into the batch for a batched product."""

    def body(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q = heads_of(self.mix(x)).reshape(batch * SAME, length, SAME)
        y = torch.bmm(torch.bmm(q, q.transpose(1, 2)).softmax(-1), q)
        y = y.view(batch, SAME, length, SAME).transpose(1, 2).reshape(batch, length, width)
        return self.head(x + y)


class TokensFirst(Prompted):
    """The sequence is axis 0, and the batch is folded into the heads."""

    def body(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        length, batch, width = x.shape
        q = self.mix(x).contiguous().view(length, batch * SAME, SAME).transpose(0, 1)
        weights = torch.bmm(q, q.transpose(1, 2)).view(batch, SAME, length, length).softmax(-1)
        y = torch.bmm(weights.view(batch * SAME, length, length), q)
        y = y.transpose(0, 1).contiguous().view(length * batch, width)
        return self.head(x + self.mix(y).view(length, batch, width)).transpose(0, 1)


class TokensInBatch(Prompted):
    """Tokens are folded into the batch and unfolded again."""

    def body(self, x: Tensor) -> Tensor:
        y = self.mix(x.reshape(-1, x.shape[-1])).relu()
        return self.head(y.view(x.shape[0], x.shape[1], self.width) + x)


class Flattened(Prompted):
    """The same by flatten and unflatten."""

    def body(self, x: Tensor) -> Tensor:
        y = self.mix(x.flatten(0, 1)).relu()
        return self.head(y.unflatten(0, (x.shape[0], x.shape[1])) + x)


class HeadsInTokens(Prompted):
    """Heads are folded into the tokens, behind them and in front of them."""

    def make(self) -> None:
        self.small = nn.Linear(SAME, SAME)

    def body(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        y = self.small(x.reshape(batch, length * SAME, SAME)).view(batch, length, WIDTH)
        z = heads_of(y).reshape(batch, SAME * length, SAME)
        z = self.small(z).view(batch, SAME, length, SAME).permute(0, 2, 1, 3)
        return self.head(z.flatten(2) + x)


class Transposed(Prompted):
    """The axis moves through permutes, and is the last one of a product."""

    def body(self, x: Tensor) -> Tensor:
        y = x.permute(0, 2, 1).softmax(-1)
        return self.head((y @ x).mean(1)) + self.head(x.permute(2, 1, 0).sum(1).t())


class Einsum(Prompted):
    """Attention by Einstein sums."""

    def body(self, x: Tensor) -> Tensor:
        q = self.mix(x).view(x.shape[0], x.shape[1], SAME, SAME)
        weights = torch.einsum("bshd,bthd->bhst", q, q).softmax(-1)
        return self.head(torch.einsum("bhst,bthd->bshd", weights, q).flatten(2))


class Fused(Prompted):
    """Queries, keys and values of one product, cut by chunk, split and unbind."""

    def make(self) -> None:
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)

    def body(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        a = functional.scaled_dot_product_attention(heads_of(q), heads_of(k), heads_of(v))
        q, k, v = self.qkv(x).split([WIDTH, WIDTH, WIDTH], -1)
        b = functional.scaled_dot_product_attention(heads_of(q), heads_of(k), heads_of(v))
        qkv = self.qkv(x).reshape(x.shape[0], x.shape[1], 3, SAME, SAME).permute(2, 0, 3, 1, 4)
        c = functional.scaled_dot_product_attention(*qkv.unbind(0))
        return self.head((a + b + c).transpose(1, 2).reshape(x.shape))


class ClassToken(Prompted):
    """A class token goes in front behind the place, is read, and dropped again."""

    def make(self) -> None:
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))

    def body(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = x + attended(self.mix(x))
        return self.head(x[:, 0]) + self.head(x[:, 1:]).mean(1) + self.head(x[:, -1])


class Square(Prompted):
    """As wide as it is long: the last axis must not be taken for the tokens."""

    width = SAME

    def body(self, x: Tensor) -> Tensor:
        y = self.mix(x).view(x.shape[0], x.shape[1], 1, SAME).transpose(1, 2)
        y = functional.scaled_dot_product_attention(y, y, y)
        y = y.transpose(1, 2).reshape(x.shape[0], x.shape[1], SAME)
        return self.head(functional.layer_norm(x + y, (SAME,)))


class Convolved(Prompted):
    """A convolution over the tokens, padded to keep their number."""

    def make(self) -> None:
        self.conv = nn.Conv1d(WIDTH, WIDTH, 3, padding=1, groups=SAME)

    def body(self, x: Tensor) -> Tensor:
        return self.head(x + self.conv(x.transpose(1, 2)).transpose(1, 2))


class Recurrent(Prompted):
    def make(self) -> None:
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True, bidirectional=True)

    def body(self, x: Tensor) -> Tensor:
        y = self.lstm(x)[0]
        return self.head(y[..., :WIDTH] + y[..., WIDTH:])


class Pooled(Prompted):
    """Several ways to have done with the tokens."""

    def body(self, x: Tensor) -> Tensor:
        pooled = (
            x.mean(1) + x.amax(1) + functional.adaptive_avg_pool1d(x.transpose(1, 2), 1)[..., 0]
        )
        return self.head(pooled + x.cumsum(1)[:, -1] + x.flip(1)[:, 0] + x.std(1))


class Repeated(Prompted):
    """Batch and tokens are repeated, stacked and interleaved."""

    def body(self, x: Tensor) -> Tensor:
        y = torch.stack([x, x.sin()], 2).flatten(1, 2)[:, ::2] + x.repeat(1, 3, 1)[:, 1::3]
        y = y + x.repeat_interleave(2, 1)[:, ::2]
        return self.head(y + x.new_ones(x.shape[1])[:, None] + torch.zeros_like(x))


class Grouped(Prompted):
    """Keys are repeated for the queries of a group, by expand and reshape."""

    def make(self) -> None:
        self.key = nn.Linear(WIDTH, 2 * SAME)

    def body(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        k = self.key(x).view(batch, length, 2, SAME).transpose(1, 2)
        k = k[:, :, None].expand(batch, 2, SAME // 2, length, SAME)
        k = k.reshape(batch, SAME, length, SAME)
        y = functional.scaled_dot_product_attention(heads_of(x), k, k)
        return self.head(y.transpose(1, 2).reshape(batch, length, WIDTH))


class Experts(Prompted):
    """A mixture over flattened tokens, weighed by a softmax of their own."""

    def make(self) -> None:
        self.gate = nn.Linear(WIDTH, 3)
        self.experts = nn.Parameter(torch.randn(3, WIDTH, WIDTH) * 0.1)

    def body(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, WIDTH)
        gate = self.gate(flat).softmax(-1)
        y = torch.einsum("te,td,edf->tf", gate, flat, self.experts)
        every = flat.repeat(3, 1).view(3, -1, WIDTH).bmm(self.experts)
        y = y + (every * gate.t()[..., None]).sum(0)
        return self.head(y.view(x.shape) + x)


class Grid(Prompted):
    """Tokens become a picture with one row."""

    def make(self) -> None:
        self.conv = nn.Conv2d(WIDTH, WIDTH, (1, 3), padding=(0, 1), groups=WIDTH)

    def body(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        y = self.conv(x.transpose(1, 2).reshape(batch, width, 1, length))
        return self.head(y.flatten(2).transpose(1, 2) + x)


FIXED = (Recurrent,)
"""Models that tracing fixes the length of."""

SHAPED: tuple[Callable[[], Prompted], ...] = (
    Attention,
    HeadsInBatch,
    TokensFirst,
    TokensInBatch,
    Flattened,
    HeadsInTokens,
    Transposed,
    Einsum,
    Fused,
    ClassToken,
    Square,
    Convolved,
    Recurrent,
    Pooled,
    Repeated,
    Grouped,
    Experts,
    Grid,
)
