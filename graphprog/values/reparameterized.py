"""Reparameterized entries: computed from other parameters, which often train better.

``gp.Concatenative(at="tokens", length=20, value=gp.reparameterized.MLP(hidden=128))``. The entries
are computed once, not once per row of the batch. ``gp.save(task, path)`` and the exports store the
computed entries, so a loaded program has plain entries. To continue training the parameters that
they are computed from: ``gp.save(task, path, resume=True)``; checkpoints of ``gp.fit`` always keep
them.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from abc import abstractmethod
from typing import Self

import torch
from torch import nn

from graphprog.errors import ProgramError
from graphprog.spec.checks import require_choice, require_integer
from graphprog.spec.registry import Spec, spec
from graphprog.values.base import Learnable
from graphprog.values.context import BuildContext
from graphprog.values.layers import ACTIVATIONS, affine
from graphprog.values.reparam_modules import Encoded, LowRankRows, SubspaceRows

__all__ = ["LSTM", "MLP", "LowRank", "Reparameterized", "Subspace"]


@dataclasses.dataclass(frozen=True)
class Reparameterized(Spec):
    """Base of reparameterized entries.

    Attributes:
        start: the inputs from which they are computed, of the shape of the entries.

    Example:
        >>> value = gp.reparameterized.MLP(hidden=8)
        >>> assert isinstance(value, gp.reparameterized.Reparameterized)
        >>> prompt = gp.Concatenative(at="tokens", length=4, value=value)
    """

    start: Learnable = dataclasses.field(
        default_factory=lambda: Learnable("normal", 1.0), kw_only=True
    )

    @abstractmethod
    def build(self, start: torch.Tensor, generator: torch.Generator) -> nn.Module:
        """Make the module that computes entries: () -> [n, d].

        Args:
            start: initial value [n, d] of the inputs.
            generator: random generator.
        """

    def folded(self) -> Self:
        """Copy without initial values that hold tensors."""
        start = self.start.folded()
        return self if start is self.start else dataclasses.replace(self, start=start)

    @property
    def reads(self) -> tuple[str, ...]:
        """No inputs: the module has its own parameters."""
        return ()

    def entries(self, context: BuildContext) -> nn.Module:
        """Make the module that computes entries of the context's shape."""
        assert context.axis is not None
        axis = context.axis - 1
        rows = self.start.start(context).movedim(axis, 0)
        return Placed(self.build(rows.flatten(1), context.generator), tuple(rows.shape), axis)


class Placed(nn.Module):
    """Forward: () -> the entries, in the shape in which they are inserted."""

    def __init__(self, rows: nn.Module, shape: tuple[int, ...], axis: int) -> None:
        super().__init__()
        self.rows = rows
        self.shape = shape
        self.axis = axis

    def forward(self, *unread: torch.Tensor) -> torch.Tensor:
        """Compute."""
        rows: torch.Tensor = self.rows()
        return rows.reshape(self.shape).movedim(0, self.axis)


@spec("mlp")
@dataclasses.dataclass(frozen=True)
class MLP(Reparameterized):
    """Reparameterize entries by a multi-layer perceptron, with one input vector per entry.

    With two layers and ``tanh`` it is that of prefix tuning (Li & Liang, ACL 2021); with three and
    ``relu`` the prompt encoder of PEFT's P-tuning.

    Attributes:
        hidden: width of the hidden layers.
        layers: number of linear layers, 2 or more.
        activation: activation between them.
        residual: whether to add the inputs to the result (Razdaibiedina et al., Findings of ACL
            2023).
        inputs: width of the input vectors; 0 is the width of an entry.
        start: the input vectors.

    Example:
        >>> value = gp.reparameterized.MLP(hidden=8, layers=2)
        >>> prompt = gp.Concatenative(at="tokens", length=4, value=value)
        >>> task = gp.compile(language, gp.Program([prompt]))
    """

    hidden: int
    layers: int = 2
    activation: str = "tanh"
    residual: bool = False
    inputs: int = 0

    def __post_init__(self) -> None:
        require_integer(self.kind, "hidden", self.hidden, 1)
        if self.layers < 2:
            raise ProgramError(f"{self.kind}: layers must be at least 2, not {self.layers}")
        require_choice(self.kind, "activation", self.activation, ACTIVATIONS)
        if self.inputs < 0 or (self.inputs and self.residual):
            raise ProgramError(
                f"{self.kind}: inputs must not be negative, and 0 with residual, not {self.inputs}"
            )

    def build(self, start: torch.Tensor, generator: torch.Generator) -> nn.Module:
        """Make the module."""
        width = start.shape[1]
        start = start[:, : self.inputs or width]
        sizes = [start.shape[1], *(self.hidden,) * (self.layers - 1), width]
        parts: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            parts += [affine(inputs, outputs, generator), ACTIVATIONS[self.activation]()]
        return Encoded(start, nn.Sequential(*parts[:-1]), None, self.residual)


@spec("lstm")
@dataclasses.dataclass(frozen=True)
class LSTM(Reparameterized):
    """Reparameterize entries by a bidirectional LSTM over input vectors, and two linear layers.

    P-tuning (Liu et al., 2021, GPT understands, too); ReLU between the linear layers.

    Attributes:
        hidden: width of each direction.
        layers: number of layers of the LSTM.
        start: the input vectors.

    Example:
        >>> value = gp.reparameterized.LSTM(hidden=8)
        >>> prompt = gp.Concatenative(at="tokens", length=4, value=value)
        >>> program = gp.Program([prompt])
    """

    hidden: int
    layers: int = 2

    def __post_init__(self) -> None:
        require_integer(self.kind, "hidden", self.hidden, 1)
        require_integer(self.kind, "layers", self.layers, 1)

    def build(self, start: torch.Tensor, generator: torch.Generator) -> nn.Module:
        """Make the module; all weights start as U(±1/√fan_in), in the LSTM U(±1/√hidden)."""
        width, both = start.shape[1], 2 * self.hidden
        lstm = nn.LSTM(width, self.hidden, self.layers, bidirectional=True, batch_first=True)
        for parameter in lstm.parameters():
            bound = 1 / math.sqrt(self.hidden)
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        head = nn.Sequential(
            affine(both, both, generator), nn.ReLU(), affine(both, width, generator)
        )
        return Encoded(start, head, lstm, residual=False)


def _near_zero() -> Learnable:
    return Learnable("normal", 0.02)


@spec("low-rank")
@dataclasses.dataclass(frozen=True)
class LowRank(Reparameterized):
    """Reparameterize entries as P ⊙ (u v): a shared prompt, scaled by a product of low rank.

    Multitask prompt tuning (Wang et al., ICLR 2023), where P is distilled from many tasks and u
    and v belong to one task. P, ``start``, is trained as well, as in that paper.

    Attributes:
        rank: rank of u [n, rank] and v [rank, d]. Their product starts near 1.
        scale: standard deviation of the random initial values of u and v.
        start: P.

    Example:
        >>> value = gp.reparameterized.LowRank(rank=1)
        >>> prompt = gp.Concatenative(at="tokens", length=4, value=value)
        >>> program = gp.Program([prompt])
    """

    rank: int = 1
    scale: float = 0.02
    start: Learnable = dataclasses.field(default_factory=_near_zero, kw_only=True)

    def __post_init__(self) -> None:
        require_integer(self.kind, "rank", self.rank, 1)

    def build(self, start: torch.Tensor, generator: torch.Generator) -> nn.Module:
        """Make the module."""
        return LowRankRows(start, self.rank, self.scale, generator)


@spec("subspace")
@dataclasses.dataclass(frozen=True)
class Subspace(Reparameterized):
    """Reparameterize entries as p + A z: few parameters z, projected by a fixed random matrix.

    The search space of black-box tuning (Sun et al., ICML 2022). A has standard normal entries
    times ``scale / √size`` and never changes; z starts at zero.

    Attributes:
        size: number of parameters z.
        scale: typical change of an entry when all of z change by one.
        start: p, which is not trained.

    Example:
        >>> value = gp.reparameterized.Subspace(size=10)
        >>> prompt = gp.Concatenative(at="tokens", length=4, value=value)
        >>> program = gp.Program([prompt])
    """

    size: int = 500
    scale: float = 0.02
    start: Learnable = dataclasses.field(default_factory=_near_zero, kw_only=True)

    def __post_init__(self) -> None:
        require_integer(self.kind, "size", self.size, 1)

    def build(self, start: torch.Tensor, generator: torch.Generator) -> nn.Module:
        """Make the module."""
        return SubspaceRows(start, self.size, self.scale, generator)
