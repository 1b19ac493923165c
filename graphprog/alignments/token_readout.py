"""Read one position of a value that has one entry per token."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from graphprog.alignments.base import Alignment
from graphprog.errors import ProgramError
from graphprog.values.context import BuildContext


class Picked(nn.Module):
    """Forward: values [B, S, F], marks [B, S] -> ``then`` applied to one position [B, F].

    The position is the last marked one; without marks the last one. If an affine layer's input,
    weight and bias are given in place of the values, the layer is computed for that position only.

    Args:
        equal: positions whose marks equal this number are marked; None marks those that are not 0.
        rows: indices of the features [R] that ``then`` takes; None takes all.
        then: module applied to [B, R]; None returns it unchanged.
        head: number of parts of the affine layer in place of the value; 0 for the value itself.
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
        # index flattened rows: the batch sizes of values and marks may not be known to be equal
        return value.flatten(0, 1)[starts + (marked * counted).amax(1)]


def require_by_token(alignment: Alignment, context: BuildContext) -> int:
    """The number of features of a value [B, S, F], read with or without marks [B, S].

    Raises:
        ProgramError: the value has another rank or dtype, or inserted entries make it longer than
            the marks.
    """
    value, place = context.value, f"{alignment.kind} reads {alignment.at!r}"
    if value.ndim != 3 or not value.is_floating_point():
        raise ProgramError(
            f"{place} of {value.dtype}{list(value.shape)}; floats [batch, tokens, "
            "features] are needed",
            ["choose another at=", "use gp.LinearHead(classes) for a value without a token axis"],
        )
    if context.read and str(context.read[0].shape[1]) != str(value.shape[1]):
        raise ProgramError(
            f"{place} of {value.shape[1]} entries, but there are {context.read[0].shape[1]} tokens",
            ["set until='logits' on the manipulation that inserts entries"],
        )
    features = value.shape[2]
    if not isinstance(features, int):
        raise ProgramError(f"{place}, whose number of features varies")
    return features
