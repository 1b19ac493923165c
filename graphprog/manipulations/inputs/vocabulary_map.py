"""Vocabulary maps: target words as combinations of source words."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from torch.nn import functional

from graphprog.errors import ProgramError
from graphprog.manipulations.inputs.token_source import TokenSource
from graphprog.spec.checks import require_choice, require_integer
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext
from graphprog.values.patches import Size


@spec("vocabulary-map")
@dataclasses.dataclass(frozen=True)
class VocabularyMap(TokenSource):
    """Take target ids [B, T], each embedded as a combination of source words.

    The vector of target word t is ``Σ_s Θ_ts e_s`` over the source's embedding table: the learned
    linear map of ReprogBERT (Melnyk et al., ICML 2023); with ``top``, only the largest coefficients
    of a word are used, a simple substitute for the sparse coding by K-SVD of R2DL (Vinod et al.,
    2020). Θ is initialized as N(0, 1/V), so that vectors are about as long as those of the source.

    Attributes:
        words: size of the target vocabulary; ids are in 0 .. words − 1.
        weighting: ``none``, or ``softmax`` for convex combinations.
        top: number of coefficients used per word, largest magnitude first; None uses all.

    Example:
        >>> task = gp.compile(language, gp.Program([gp.VocabularyMap(words=10)]))
        >>> task(torch.randint(10, (2, 5))).shape  # ids of the target's ten words
        torch.Size([2, 5, 256])
    """

    words: int
    weighting: str = "none"
    top: int | None = None

    def __post_init__(self) -> None:
        require_integer(self.kind, "words", self.words, 1)
        require_choice(self.kind, "weighting", self.weighting, ("none", "softmax"))
        if self.top is not None:
            require_integer(self.kind, "top", self.top, 1)

    def shape(self, length: Size, where: str) -> tuple[Size, ...]:
        """(T,)."""
        return (length,)

    @property
    def dtype(self) -> torch.dtype:
        """Ids."""
        return torch.int64

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for tokens [B, T, d], ids [B, T] and a table [V, d].

        Raises:
            ProgramError: ``top`` exceeds the number of source words.
        """
        rows = int(context.read[1].shape[0])
        if self.top is not None and self.top > rows:
            raise ProgramError(
                f"{context.where}: top {self.top} exceeds the {rows} source words",
                [f"set top={rows} or less"],
            )
        module = _Combination(self, rows)
        nn.init.normal_(module.value, std=rows**-0.5, generator=context.generator)
        return module


class _Combination(nn.Module):
    """Forward: ids [B, T], table [V, d] -> [B, T, d]."""

    def __init__(self, spec: VocabularyMap, rows: int) -> None:
        super().__init__()
        self.spec = spec
        self.value = nn.Parameter(torch.empty(spec.words, rows))

    def forward(self, ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Look up in the target's embedding table."""
        weights: torch.Tensor = self.value
        if self.spec.weighting == "softmax":
            weights = weights.softmax(-1)
        if self.spec.top is not None:
            kept = weights.abs().topk(self.spec.top, -1).indices
            weights = weights * torch.zeros_like(weights).scatter(-1, kept, 1.0)
        return functional.embedding(ids, weights.to(table.dtype) @ table)
