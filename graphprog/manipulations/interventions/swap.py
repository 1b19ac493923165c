"""Exchange of a value with that of another run."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from graphprog.manipulations.selective import SelectiveManipulation
from graphprog.spec.checks import require_name
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext


@spec("swap")
@dataclasses.dataclass(frozen=True)
class Swap(SelectiveManipulation):
    """Replace a value by that of another run, an interchange intervention (Geiger et al., 2021).

    The other value is a new input of the model, with the shape and dtype of the value at the
    interface: ``gp.record(graph, others, at=...)`` gives it. So one compiled model, and one
    exported file, exchange any pairs of rows.

    Attributes:
        donor: name of the input; for several interfaces with a ``*``, as in ``at``. Parts that act
            at interfaces of one type may share it.

    Example:
        >>> task = gp.compile(language, gp.Program([gp.Swap(at="hidden[0]", positions="last")]))
        >>> other = gp.record(language, ids.flip(0), at="hidden[0]")["hidden[0]"]
        >>> exchanged = task(ids, other)
    """

    donor: str = "donor"

    def __post_init__(self) -> None:
        require_name(self.kind, "donor", self.donor)

    @property
    def new_inputs(self) -> tuple[str, ...]:
        """The value of the other run."""
        return (self.donor,)

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for a value and that of the other run."""
        return _Exchanged()


class _Exchanged(nn.Module):
    """Forward: value and donor [B, ...] -> [B, ...]."""

    def forward(self, x: torch.Tensor, donor: torch.Tensor) -> torch.Tensor:
        """Take the other."""
        return donor
