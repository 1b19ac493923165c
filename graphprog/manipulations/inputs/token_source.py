"""Inputs of another kind in place of token ids."""

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
    """What computes the vectors at ``tokens`` from a new input, which the ids give way to.

    The graph then takes the new input where it took ids. Everything else stays: masks and other
    side inputs have one entry a token, as before, and positions are added as they are to words.
    Derived classes make a module that takes the new input and the table of the source's word
    vectors [V, d], and returns the tokens [B, T, d].

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
            length: tokens of the graph; symbolic where they vary.
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
            context: of the tokens that are replaced [B, T, d]; it has read the new input and the
                table.
        """
