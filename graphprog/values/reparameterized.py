"""Entries that are computed from other parameters, which trains better than they do themselves.

``gp.Concatenative(at="tokens", length=20, value=gp.reparameterized.MLP(hidden=128))``. The entries
are computed once, not once for every row of the batch. ``gp.save(task, path)`` and the exports
store the computed entries, so that a loaded program is one of plain entries. To go on training the
parameters that they are computed from: ``gp.save(task, path, resume=True)``; checkpoints of
``gp.fit`` always keep them.
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
    """Base of entries that are computed.

    Attributes:
        start: what they are computed from, of the shape of the entries.

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
            start: initial value [n, d] of what they are computed from.
            generator: source of all randomness.
        """

    def folded(self) -> Self:
        """The same without initial values that hold tensors."""
        start = self.start.folded()
        return self if start is self.start else dataclasses.replace(self, start=start)

    @property
    def reads(self) -> tuple[str, ...]:
        """Nothing: the parameters are their own."""
        return ()

    def entries(self, context: BuildContext) -> nn.Module:
        """The module that computes entries of the context's shape."""
        assert context.axis is not None
        axis = context.axis - 1
        rows = self.start.start(context).movedim(axis, 0)
        return Placed(self.build(rows.flatten(1), context.generator), tuple(rows.shape), axis)


class Placed(nn.Module):
    """Forward: () -> the entries in the shape in which they are inserted."""

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
    """Entries out of a multi-layer perceptron with one input an entry.

    With two layers and ``tanh`` as for the prefixes of Li & Liang, ACL 2021; with three and
    ``relu`` the prompt encoder of PEFT's P-tuning.

    Attributes:
        hidden: width between the layers.
        layers: how many linear layers, 2 or more.
        activation: between them.
        residual: add the inputs to the result (Razdaibiedina et al., Findings of ACL 2023).
        inputs: how many numbers of ``start`` an entry is computed from; 0 is as many as it has.
        start: the inputs.

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
            raise ProgramError(f"{self.kind}: {self.layers} layers, where there are 2 or more")
        require_choice(self.kind, "activation", self.activation, ACTIVATIONS)
        if self.inputs < 0 or (self.inputs and self.residual):
            raise ProgramError(
                f"{self.kind}: {self.inputs} inputs; with residual there are as many as numbers"
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
    """Entries out of a bidirectional LSTM over one input an entry, and two linear layers.

    P-tuning (Liu et al., 2021, GPT understands, too); ReLU between the linear layers.

    Attributes:
        hidden: width of each direction.
        layers: of the LSTM.
        start: the inputs.

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
    """Entries P ⊙ (u v): a shared prompt, scaled by a product of low rank.

    Multitask prompt tuning (Wang et al., ICLR 2023), where P is distilled from many tasks and u
    and v belong to one. P, ``start``, is trained along, as in that paper.

    Attributes:
        rank: of u [n, rank] and v [rank, d]. Their product starts near 1.
        scale: deviation of what u and v start with beyond that.
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
    """Entries p + A z: a few numbers z, spread by a fixed random matrix.

    The search space of black-box tuning (Sun et al., ICML 2022). A has standard normal entries
    times ``scale / √size`` and never changes; z starts at zero.

    Attributes:
        size: how many numbers are learned.
        scale: how far an entry moves, typically, when all of z moves by one.
        start: p, which stays.

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
