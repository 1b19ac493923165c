"""Patches as tokens: by a linear map, or by attention to prototypes of the source's words."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional

from graphprog.manipulations.inputs.token_source import TokenSource
from graphprog.spec.checks import require_integer
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext
from graphprog.values.layers import affine
from graphprog.values.patches import Patches, SeriesPatches, Size


@spec("patch-tokens")
@dataclasses.dataclass(frozen=True)
class PatchTokens(TokenSource):
    """Take a series or an image in place of ids, and map every patch linearly to a token.

    Attributes:
        patches: how the input is cut into patches.

    Example:
        >>> tokens = gp.PatchTokens(patches=gp.patches.SeriesPatches(patch=4, stride=4))
        >>> task = gp.compile(language, gp.Program([tokens]))
        >>> task(torch.rand(2, 20)).shape
        torch.Size([2, 5, 256])
    """

    patches: Patches = dataclasses.field(default_factory=SeriesPatches)

    def shape(self, length: Size, where: str) -> tuple[Size, ...]:
        """Shape of the input of the patches."""
        return self.patches.shape(length, where)

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for tokens [B, T, d], the input, and a table [V, d]."""
        return _LinearTokens(self.patches, int(context.value.shape[-1]), context.generator)


class _LinearTokens(nn.Module):
    """Forward: input [B, ...], table [V, d] -> [B, T, d]."""

    def __init__(self, patches: Patches, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.cut = patches.build()
        self.map = affine(patches.width, width, generator)

    def forward(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Cut and map."""
        tokens: torch.Tensor = self.map(self.cut(x))
        return tokens.to(table.dtype)


@spec("prototypes")
@dataclasses.dataclass(frozen=True)
class Prototypes(PatchTokens):
    """Take a series or an image in place of ids, whose patches attend to prototypes of words.

    The reprogramming layer of Time-LLM (Jin et al., ICLR 2024): patches are embedded by a circular
    convolution over each patch and its neighbors, without bias; a linear map over the words of the
    source's embedding table makes ``count`` prototypes and has most of the parameters; and
    multi-head attention from patches to prototypes makes the tokens.

    Attributes:
        count: number of prototypes.
        width: width of the embedded patches.
        heads: number of attention heads.
        keys: width of a head.

    Example:
        >>> tokens = gp.Prototypes(count=8, width=4, heads=2, keys=4)
        >>> task = gp.compile(language, gp.Program([tokens]))
        >>> assert task(torch.rand(2, 80)).shape[0] == 2
    """

    count: int = 1000
    width: int = 32
    heads: int = 8
    keys: int = 128

    def __post_init__(self) -> None:
        for name in ("count", "width", "heads", "keys"):
            require_integer(self.kind, name, getattr(self, name), 1)

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for tokens [B, T, d], the input, and a table [V, d]."""
        rows, inner = (int(size) for size in context.read[1].shape)
        outer = int(context.value.shape[-1])
        return _Reprogramming(self, rows, inner, outer, context.generator)


class _Reprogramming(nn.Module):
    """Forward: input [B, ...], table [V, d] -> [B, T, d]."""

    def __init__(
        self, spec: Prototypes, rows: int, inner: int, outer: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.spec = spec
        wide = spec.heads * spec.keys
        self.cut = spec.patches.build()
        self.embed = nn.Conv1d(spec.patches.width, spec.width, 3, bias=False)
        nn.init.kaiming_normal_(self.embed.weight, nonlinearity="leaky_relu", generator=generator)
        self.gather = affine(rows, spec.count, generator)
        self.query = affine(spec.width, wide, generator)
        self.key = affine(inner, wide, generator)
        self.value = affine(inner, wide, generator)
        self.out = affine(wide, outer, generator)

    def forward(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Embed, gather, attend."""
        patches: torch.Tensor = self.cut(x).transpose(1, 2)
        around = torch.cat([patches[..., -1:], patches, patches[..., :1]], -1)
        embedded = functional.conv1d(around, self.embed.weight).transpose(1, 2)
        words = self.gather(table.float().T).T
        shape = (-1, self.spec.keys)
        queries = self.query(embedded).unflatten(-1, shape).transpose(1, 2)
        keys, values = (
            m(words).unflatten(-1, shape).transpose(0, 1) for m in (self.key, self.value)
        )
        scores = queries @ keys.transpose(1, 2) / math.sqrt(self.spec.keys)
        found = scores.softmax(-1) @ values
        tokens: torch.Tensor = self.out(found.transpose(1, 2).flatten(2))
        return tokens.to(table.dtype)
