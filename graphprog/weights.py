"""The tensors a graph reads: the frozen source's, and the program's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import nn

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@runtime_checkable
class Adding(Protocol):
    """A part of a program that adds the same pattern to every row."""

    def pattern(self) -> torch.Tensor:
        """What is added, in float32."""


class ProgramParts(nn.Module):
    """The modules of a program, one child a part."""

    def patterns(self) -> dict[str, torch.Tensor]:
        """What the additive parts add, by part, in float32 and without gradient."""
        return {
            name: part.pattern().detach()
            for name, part in self.named_children()
            if isinstance(part, Adding)
        }

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the additive parts; see :func:`graphprog.plots.plot_program`."""
        from graphprog.plots import plot_program

        return plot_program(self.patterns(), path)


class Weights(nn.Module):
    """Root of all tensors a graph reads: ``source.*`` (frozen) and ``program.*``."""

    def __init__(self, source: nn.Module, program: ProgramParts | None = None) -> None:
        super().__init__()
        self.source = source
        self.program = program if program is not None else ProgramParts()


def copied_tree(module: nn.Module) -> nn.Module:
    """The same tensors in a new tree of modules, which can then be changed."""
    copy = nn.Module()
    for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
        copy.register_parameter(name, parameter)
    for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
        copy.register_buffer(name, buffer)
    for name, child in module.named_children():
        copy.add_module(name, copied_tree(child))
    return copy
