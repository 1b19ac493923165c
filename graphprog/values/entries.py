"""Prompt entries: modules that hold or compute them."""

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
from graphprog.values.reparameterized import Placed


@runtime_checkable
class Made(Protocol):
    """Value whose entries are computed by a module, possibly from other parts of the program."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Inputs of the module; see :attr:`graphprog.Manipulation.reads`."""

    def entries(self, context: BuildContext) -> nn.Module:
        """Make the module: inputs -> entries of the context's shape, with or without a batch."""


@spec("shared")
@dataclasses.dataclass(frozen=True)
class Shared(Spec):
    """Reuse the entries of another part of the program.

    Attributes:
        of: name of the other part.
    """

    of: str

    @property
    def reads(self) -> tuple[str, ...]:
        """The other part."""
        return (f"program.{self.of}",)

    def entries(self, context: BuildContext) -> nn.Module:
        """Make a module that returns the other part's entries.

        Raises:
            ProgramError: the other part's entries have another shape.
        """
        _require_shape(self.of, context, context.shape)
        return nn.Identity()


@spec("derived")
@dataclasses.dataclass(frozen=True)
class Derived(Spec):
    """Learnt affine map of the entries of another part of the program, applied to each entry.

    It couples prompts of two towers: the vision prompts of MaPLe (Khattak et al., CVPR 2023) are
    linear maps of its text prompts.

    Attributes:
        of: name of the other part, which has the same number of entries.
    """

    of: str

    @property
    def reads(self) -> tuple[str, ...]:
        """The other part."""
        return (f"program.{self.of}",)

    def entries(self, context: BuildContext) -> nn.Module:
        """Make the map from the last axis of the other entries to that of these.

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
            ["set the same length= on both parts"],
        )


class Entries(nn.Module):
    """Forward: the value at the interface, which is not used, and inputs -> entries.

    Returns the entries, without batch or with one, in the dtype of the interface.
    """

    value: torch.Tensor

    def __init__(self, dtype: torch.dtype, made: nn.Module | None) -> None:
        super().__init__()
        self.dtype = dtype
        self.made = made

    def inserted_entries(self) -> torch.Tensor | None:
        """The entries [P, d] in float32; None if they depend on inputs or have another shape."""
        if self.made is None:
            found: torch.Tensor = self.value
        elif isinstance(self.made, Placed):
            found = self.made()
        else:
            return None
        return found.detach().float() if found.ndim == 2 else None

    def forward(self, x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        """The entries."""
        entries: torch.Tensor = self.value if self.made is None else self.made(*others)
        return entries if entries.dtype == self.dtype else entries.to(self.dtype)


def entries_module(value: Learnable | Fixed | Stored | Made, context: BuildContext) -> Entries:
    """Make the module of prompt entries of the shape of the context's value.

    Raises:
        InterfaceError: the value is not floating point.
        ProgramError: the entries have another shape.
    """
    dtype = context.value.dtype
    if not dtype.is_floating_point:
        raise InterfaceError(
            f"{context.where} has dtype {dtype}: learned entries need floating point",
            ["choose an interface after the embedding: at='tokens' or at='embedding'"],
        )
    if isinstance(value, Made):
        return Entries(dtype, value.entries(context))
    module = Entries(dtype, None)
    value.attach(module, context)
    return module
