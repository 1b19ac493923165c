"""One position of a value that has one entry a token."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from graphprog.alignments.base import Alignment
from graphprog.errors import ProgramError
from graphprog.values.context import BuildContext


class Picked(nn.Module):
    """Forward: values [B, S, F], marks [B, S] -> what ``then`` makes of one position [B, F].

    The position is the last one that is marked; without marks the last of all. Where an affine
    layer's reading, weight and bias are given in the place of the values, the layer is computed
    for that position alone.

    Args:
        equal: a position is marked where the marks equal this number; None where they are not 0.
        rows: numbers of the features [R] that ``then`` takes; None gives it all.
        then: what is made of [B, R]; None returns it.
        head: how many values stand for the first one; 0 where it is there itself.
    """

    rows: torch.Tensor | None

    def __init__(
        self,
        equal: int | None = None,
        rows: torch.Tensor | None = None,
        then: nn.Module | None = None,
        head: int = 0,
    ) -> None:
        super().__init__()
        self.equal = equal
        self.register_buffer("rows", rows, persistent=False)
        self.then = then
        self.head = head

    def forward(self, value: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        """Pick, then compute."""
        count = max(self.head - 1, 0)
        layer, marks = others[:count], others[count:]
        picked = self._position(value, *marks)
        if layer:
            parts = [part if self.rows is None else part[self.rows] for part in layer]
            picked = functional.linear(picked, *parts)
        elif self.rows is not None:
            picked = picked[:, self.rows]
        return picked if self.then is None else self.then(picked)

    def _position(self, value: torch.Tensor, marks: torch.Tensor | None = None) -> torch.Tensor:
        if marks is None:
            return value[:, -1]
        marked = marks != 0 if self.equal is None else marks == self.equal
        rows, length = marks.shape
        counted = torch.arange(length, device=marks.device)
        starts = torch.arange(rows, device=marks.device) * length
        # by number in all rows: the two batches may not be known to be one
        return value.flatten(0, 1)[starts + (marked * counted).amax(1)]


def require_by_token(alignment: Alignment, context: BuildContext) -> int:
    """The number of features of a value [B, S, F], read beside marks [B, S] or alone.

    Raises:
        ProgramError: the value is no such one; or inserted entries make it longer than the marks.
    """
    value, place = context.value, f"{alignment.kind} reads {alignment.at!r}"
    if value.ndim != 3 or not value.is_floating_point():
        raise ProgramError(
            f"{place} of {value.dtype}{list(value.shape)}; floats [batch, tokens, "
            "features] are needed",
            ["another at=", "gp.LinearHead(classes) for a value without an axis of tokens"],
        )
    if context.read and str(context.read[0].shape[1]) != str(value.shape[1]):
        raise ProgramError(
            f"{place} of {value.shape[1]} entries, for {context.read[0].shape[1]} tokens",
            ["until='logits' on the manipulation that inserts entries"],
        )
    features = value.shape[2]
    if not isinstance(features, int):
        raise ProgramError(f"{place}, whose number of features varies")
    return features
