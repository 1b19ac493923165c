"""Entries of a prompt: the module that gives them, whatever they are made of."""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from graphprog.errors import InterfaceError, ProgramError
from graphprog.spec.registry import Spec, spec
from graphprog.values.base import Fixed, Learnable, Stored, shape_text
from graphprog.values.context import BuildContext
from graphprog.values.layers import affine


@runtime_checkable
class Made(Protocol):
    """A value whose entries a module computes, from what other parts of the program share."""

    @property
    def reads(self) -> tuple[str, ...]:
        """What the module takes; see :attr:`graphprog.Manipulation.reads`."""

    def entries(self, context: BuildContext) -> nn.Module:
        """The module: what is read -> entries of the context's shape, with or without a batch."""


@spec("shared")
@dataclasses.dataclass(frozen=True)
class Shared(Spec):
    """The entries of another part of the program, put in once more."""

    of: str

    @property
    def reads(self) -> tuple[str, ...]:
        """The other part."""
        return (f"program.{self.of}",)

    def entries(self, context: BuildContext) -> nn.Module:
        """Nothing of its own.

        Raises:
            ProgramError: the other part's entries have another shape.
        """
        _require_shape(self.of, context, context.shape)
        return nn.Identity()


@spec("derived")
@dataclasses.dataclass(frozen=True)
class Derived(Spec):
    """A learned affine map of the entries of another part of the program, entry by entry.

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

    def entries(self, context: BuildContext) -> nn.Module:
        """The map from the last axis of the other entries to that of these.

        Raises:
            ProgramError: the other part has another number of entries.
        """
        width = int(context.read[0].shape[-1])
        _require_shape(self.of, context, (*context.shape[:-1], width))
        return affine(width, context.shape[-1], context.generator)


def _require_shape(of: str, context: BuildContext, shape: tuple[int, ...]) -> None:
    value = context.read[0]
    if tuple(value.shape)[-len(shape) :] != shape:
        raise ProgramError(
            f"{context.where}: {of!r} shares a value of shape {shape_text(value)}, not {shape}",
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


def entries_module(value: Learnable | Fixed | Stored | Made, context: BuildContext) -> Entries:
    """The module that gives the entries of a prompt, of the shape of the context's value.

    Raises:
        InterfaceError: the interface holds no floats.
        ProgramError: the entries do not fit.
    """
    dtype = context.value.dtype
    if not dtype.is_floating_point:
        raise InterfaceError(
            f"{context.where} carries {dtype}: no learned entries can stand there",
            ["insert where integers have become floats: at 'tokens' or 'embedding'"],
        )
    if isinstance(value, Made):
        return Entries(dtype, value.entries(context))
    module = Entries(dtype, None)
    value.attach(module, context)
    return module
