"""Small networks whose residual stream is not a plain list of equal blocks."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Mlp(nn.Module):
    """Two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(functional.gelu(self.up(x)))


class OuterInner(nn.Module):
    """Refines pixels, adds them to their patches, and refines these: returns both."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels, self.join, self.patches = Mlp(4), nn.Linear(8, 6), Mlp(6)

    def forward(
        self, pixels: torch.Tensor, patches: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = pixels + self.pixels(pixels)
        patches = patches + self.join(pixels.flatten(2))
        return pixels, patches + self.patches(patches)


class OuterInnerStack(nn.Module):
    """A transformer in a transformer: pixels [B, patches, 2, 4] and patches [B, patches, 6]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.enter = nn.Linear(3, 4), nn.Linear(8, 6)
        self.blocks = nn.ModuleList(OuterInner() for _ in range(3))
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pixels = self.embed(x)
        patches = self.enter(pixels.flatten(2))
        for block in self.blocks:
            pixels, patches = block(pixels, patches)
        return self.head(patches.mean(1))


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(width, 2, 1), nn.Conv2d(2, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu())
        return x * scale.sigmoid()


class Merged(nn.Module):
    """A block whose branches have become one convolution."""

    def __init__(self, width: int, gated: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.gate = Gate(width) if gated else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gate(self.conv(x)).relu()


class MergedStack(nn.Module):
    """A convolutional network without residual additions, every other block gated."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Merged(4, gated=bool(i % 2)) for i in range(4)))
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(x).mean((2, 3)))


class PostNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp, self.norm = Mlp(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x + self.mlp(x))


class ConvolutionBeside(nn.Module):
    """An encoder that adds a convolution of its input to the result of its first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.conv = nn.Linear(3, 8), nn.Conv1d(8, 8, 3, padding=1)
        self.norm, self.layers = nn.LayerNorm(8), nn.ModuleList(PostNorm(8) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        start = self.enter(x)
        x = self.norm(self.layers[0](start) + self.conv(start.mT).mT.tanh())
        for layer in self.layers[1:]:
            x = layer(x)
        return x


class ConvolutionBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x).relu()


class TokenBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = Mlp(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).mT
        return (tokens + self.mlp(tokens)).mT.reshape_as(x)


class Stage(nn.Module):
    """A strided convolution, then convolution blocks, then token blocks."""

    def __init__(self, width: int, convolutions: int, tokens: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width // 2, width, 2, stride=2)
        blocks = [ConvolutionBlock(width) for _ in range(convolutions)]
        self.blocks = nn.Sequential(*blocks, *(TokenBlock(width) for _ in range(tokens)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.down(x))


class Hybrid(nn.Module):
    """Stages of convolution blocks and token blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.stages = nn.Sequential(Stage(8, 2, 0), Stage(16, 1, 2), Stage(32, 1, 1))
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)).mean((2, 3)))


class PooledQuery(nn.Module):
    """Self-attention with queries pooled in pairs, or keys and values, and a pooled residual."""

    def __init__(self, width: int, pool: str) -> None:
        super().__init__()
        self.pool = pool
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        short = functional.avg_pool1d(x.mT, 2).mT
        asked, read = (short, x) if self.pool == "queries" else (x, short)
        parts = (self.query(asked), self.key(read), self.value(read))
        heads = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in parts)
        result = functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return asked + self.out(result)


class PooledAttention(nn.Module):
    """Blocks that halve their sequence, or read a half of it."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(3, 8)
        self.blocks = nn.Sequential(*(PooledQuery(8, pool) for pool in ("queries", "keys")))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.enter(x))


class ImageTower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Linear(3, 8), nn.LayerNorm(8)
        self.layers = nn.Sequential(*(PostNorm(8) for _ in range(3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(self.norm(self.patches(x))).mean(1)


class TextTower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.positions = nn.Embedding(50, 6), nn.Parameter(torch.randn(7, 6))
        self.layers = nn.Sequential(*(PostNorm(6) for _ in range(2)))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.layers(self.table(ids) + self.positions[: ids.shape[1]])[:, -1]


class Contrastive(nn.Module):
    """An image tower and a text tower, projected and compared."""

    def __init__(self) -> None:
        super().__init__()
        self.vision_model, self.text_model = ImageTower(), TextTower()
        self.image_projection, self.text_projection = nn.Linear(8, 4), nn.Linear(6, 4)

    def forward(
        self, pixels: torch.Tensor, ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        images = functional.normalize(self.image_projection(self.vision_model(pixels)), dim=-1)
        texts = functional.normalize(self.text_projection(self.text_model(ids)), dim=-1)
        return 10 * images @ texts.T, images, texts
