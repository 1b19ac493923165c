"""Base of manipulations that replace token ids by another input."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import nn

from graphprog.manipulations.base import Manipulation
from graphprog.values.context import BuildContext
from graphprog.values.patches import Size


@dataclasses.dataclass(frozen=True)
class TokenSource(Manipulation):
    """Base of manipulations that compute the vectors at ``tokens`` from a new input.

    The new input replaces the ids of the graph. Everything else stays: masks and other side inputs
    have one entry per token, as before, and positions are added as for words. Derived classes make
    a module that takes the new input and the source's embedding table [V, d], and returns the
    tokens [B, T, d].

    Example:
        >>> source = gp.VocabularyMap(words=10)
        >>> assert isinstance(source, gp.TokenSource)
        >>> source.shape(6, "tokens"), source.dtype  # of the new input, for six tokens
        ((6,), torch.int64)
    """

    lowering: ClassVar[str] = "replace-tokens"

    at: str = dataclasses.field(default="tokens", kw_only=True)

    @abstractmethod
    def shape(self, length: Size, where: str) -> tuple[Size, ...]:
        """Shape of the new input, without the batch, that makes ``length`` tokens.

        Args:
            length: number of tokens of the graph; symbolic if dynamic.
            where: interface key, for messages.
        """

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the new input."""
        return torch.float32

    @abstractmethod
    def build(self, context: BuildContext) -> nn.Module:
        """Make the module: new input, table [V, d] -> tokens [B, T, d].

        Args:
            context: for the replaced tokens [B, T, d]; its ``read`` has the new input and the
                table.
        """
