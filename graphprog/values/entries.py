"""Entries of a prompt: the module that gives them, whatever they are made of."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import nn

from graphprog.errors import InterfaceError, ProgramError
from graphprog.rewriting.fake_tracing import fake_mode_of, running
from graphprog.spec.registry import Spec, spec
from graphprog.values.base import Fixed, Learnable, shape_text, static_shape
from graphprog.values.layers import affine
from graphprog.values.stored import Stored

if TYPE_CHECKING:
    from graphprog.ir.graph import Graph


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which entries are wanted.

    Attributes:
        like: fake tensor of the interface's type, with the number of entries on the axis; its
            first axis is the batch.
        axis: of ``like`` along which the entries stand, not 0.
        where: interface key, for messages.
        generator: source of all randomness.
        graph: what the interface lies in, for initial values that come from the source.
    """

    like: torch.Tensor
    axis: int
    where: str
    generator: torch.Generator
    graph: Graph | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the entries without the batch; axes of varying length count as 1."""
        return static_shape(self.like)


def resized(value: torch.Tensor, axis: int, length: int) -> torch.Tensor:
    """A fake tensor of a value's type with another number of entries on an axis."""
    shape = list(value.shape)
    shape[axis] = length
    with running(fake_mode_of(value)):
        return value.new_empty(shape)


@runtime_checkable
class Made(Protocol):
    """A value whose entries a module computes, from what other parts of the program share."""

    @property
    def reads(self) -> tuple[str, ...]:
        """What the module takes; see :attr:`graphprog.Manipulation.reads`."""

    def entries(self, wanted: Wanted, others: tuple[torch.Tensor, ...]) -> nn.Module:
        """The module: what is read -> entries, with or without a batch."""


@spec("shared")
@dataclasses.dataclass(frozen=True)
class Shared(Spec):
    """The entries of another part of the program, put in once more."""

    of: str

    @property
    def reads(self) -> tuple[str, ...]:
        """The other part."""
        return (f"program.{self.of}",)

    def entries(self, wanted: Wanted, others: tuple[torch.Tensor, ...]) -> nn.Module:
        """Nothing of its own.

        Raises:
            ProgramError: the other part's entries have another shape.
        """
        _require_shape(self.of, others[0], wanted, wanted.shape)
        return nn.Identity()


@spec("derived")
@dataclasses.dataclass(frozen=True)
class Derived(Spec):
    """A learnt affine map of the entries of another part of the program, entry by entry.

    It couples prompts of two towers: the vision prompts of MaPLe (Khattak et al., CVPR 2023) are
    such a map of its text prompts.

    Attributes:
        of: name of the other part, which has as many entries.
    """

    of: str

    @property
    def reads(self) -> tuple[str, ...]:
        """The other part."""
        return (f"program.{self.of}",)

    def entries(self, wanted: Wanted, others: tuple[torch.Tensor, ...]) -> nn.Module:
        """The map from the last axis of the other entries to that of these.

        Raises:
            ProgramError: the other part has another number of entries.
        """
        width = others[0].shape[-1]
        _require_shape(self.of, others[0], wanted, (*wanted.shape[:-1], int(width)))
        return affine(int(width), wanted.shape[-1], wanted.generator)


def _require_shape(of: str, value: torch.Tensor, wanted: Wanted, shape: tuple[int, ...]) -> None:
    if tuple(value.shape)[-len(shape) :] != shape:
        raise ProgramError(
            f"{wanted.where}: {of!r} shares a value of shape {shape_text(value)}, not {shape}",
            ["give both parts the same length"],
        )


class Entries(nn.Module):
    """Forward: the value at the interface, of which only the type counts, and what is read.

    Returns the entries, without batch or with one, in the dtype of the interface.
    """

    value: torch.Tensor

    def __init__(self, dtype: torch.dtype, made: nn.Module | None) -> None:
        super().__init__()
        self.dtype = dtype
        self.made = made

    def forward(self, x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        """The entries."""
        entries: torch.Tensor = self.value if self.made is None else self.made(*others)
        return entries if entries.dtype == self.dtype else entries.to(self.dtype)


def entries_module(
    value: Learnable | Fixed | Stored | Made, wanted: Wanted, others: tuple[torch.Tensor, ...] = ()
) -> Entries:
    """The module that gives the entries of a prompt.

    Raises:
        InterfaceError: the interface holds no floats.
        ProgramError: the entries do not fit.
    """
    if not wanted.like.dtype.is_floating_point:
        raise InterfaceError(
            f"{wanted.where} carries {wanted.like.dtype}: no learnt entries can stand there",
            ["insert where integers have become floats: at 'tokens' or 'embedding'"],
        )
    if isinstance(value, Made):
        return Entries(wanted.like.dtype, value.entries(wanted, others))
    module = Entries(wanted.like.dtype, None)
    value.attach(module, wanted.like, wanted.where, wanted.generator, wanted.graph, wanted.axis - 1)
    return module
