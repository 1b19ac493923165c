"""Edits of a learned linear subspace of a value."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from torch.nn import functional

from graphprog.errors import ProgramError
from graphprog.manipulations.selective import SelectiveManipulation
from graphprog.spec.checks import require_integer, require_name
from graphprog.spec.registry import spec
from graphprog.values.context import BuildContext
from graphprog.values.layers import affine
from graphprog.values.requirements import last_size, require_floats


@spec("linear-subspace")
@dataclasses.dataclass(frozen=True)
class Subspace(SelectiveManipulation):
    """Edit a value within a subspace of its features, spanned by the orthonormal rows of R.

    Without a donor it is LoReFT (Wu et al., NeurIPS 2024, arXiv:2404.03592), of two learned maps:
    ``h + Rᵀ(W h + b - R h)``. W and b start like a linear layer, as in the authors' code, so a new
    program does not start as the source.

    With a donor it is distributed alignment search (Geiger et al., CLeaR 2024, arXiv:2303.02536):
    ``h + Rᵀ(R s - R h)``, where s, the value of another run, is a new input of the model, as in
    :class:`graphprog.Swap`. R is learned, so that the exchange has the effect that the labels say.

    R is computed from its parameters by the method of Gram and Schmidt in every run, so training
    cannot leave the orthonormal matrices; this takes a few operations for each row.

    Attributes:
        rank: number of rows of R, at most the number of features, which are the last axis.
        donor: name of the input of the other value; empty for LoReFT.

    Example:
        >>> part = gp.Subspace(rank=2, at="hidden[*]", positions="0:2,-2:")
        >>> task = gp.compile(language, gp.Program([part]))
        >>> edited = task(ids)
    """

    rank: int
    donor: str = ""

    def __post_init__(self) -> None:
        require_integer(self.kind, "rank", self.rank, 1)
        if self.donor:
            require_name(self.kind, "donor", self.donor)

    @property
    def new_inputs(self) -> tuple[str, ...]:
        """The value of the other run, if there is a donor."""
        return (self.donor,) if self.donor else ()

    def build(self, context: BuildContext) -> nn.Module:
        """Make the module for a float value [..., d].

        Raises:
            InterfaceError: the value is not floating point, or its last axis is dynamic.
            ProgramError: it has fewer features than the subspace.
        """
        require_floats(context.value, context.where)
        width = last_size(context.value, context.where)
        if self.rank > width:
            raise ProgramError(
                f"{context.where}: a subspace of rank {self.rank} does not fit into "
                f"{width} features",
                [f"rank={width} or less"],
            )
        return _Edited(width, self.rank, not self.donor, context.generator)


class _Edited(nn.Module):
    """Forward: value, and donor if there is one, [..., d] -> [..., d]."""

    def __init__(self, width: int, rank: int, learned: bool, generator: torch.Generator) -> None:
        super().__init__()
        rows = torch.empty(rank, width).normal_(generator=generator)
        with torch.no_grad():
            self.rows = nn.Parameter(orthonormal(rows.double()).float())
        self.aim = affine(width, rank, generator) if learned else None

    def forward(self, x: torch.Tensor, donor: torch.Tensor | None = None) -> torch.Tensor:
        """Move the value within the subspace."""
        basis = orthonormal(self.rows).to(x.dtype)
        given = x if donor is None else donor
        wanted = functional.linear(given, basis) if self.aim is None else self.aim(x)
        return x + (wanted - functional.linear(x, basis)) @ basis


def orthonormal(rows: torch.Tensor) -> torch.Tensor:
    """Return the orthonormal rows of Gram and Schmidt's method, [r, d] with r at most d."""
    found: list[torch.Tensor] = []
    while len(found) < len(rows):
        row = rows[len(found)]
        found.append(row * row.square().sum().clamp(min=1e-30).rsqrt())
        rows = rows - torch.outer(rows @ found[-1], found[-1])
    return torch.stack(found)
