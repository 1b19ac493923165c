"""The tensors that a graph reads: those of the frozen source model and of the program."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

import torch
from torch import nn

from graphprog.errors import ProgramError
from graphprog.ir.fingerprint import WeightHash
from graphprog.ir.memory.packed import PackedWeight, packed_weights
from graphprog.utils.plots.programs import plot_program

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@runtime_checkable
class Adding(Protocol):
    """A part of a program that adds the same pattern to every row."""

    def pattern(self) -> torch.Tensor:
        """Return the added pattern, in float32."""


@runtime_checkable
class Inserting(Protocol):
    """A part of a program that inserts entries."""

    def inserted_entries(self) -> torch.Tensor | None:
        """Return the entries [P, d], in float32; None if they are not the same for every row."""


Nearest = Callable[[torch.Tensor], list[list[tuple[str, float]]]]
"""From vectors [P, d] to the nearest tokens of each, with their similarities."""


class ProgramParts(nn.Module):
    """The modules of a program, one child for each part.

    Prints as the text of the program, if known, and the tensors with their shapes.

    Args:
        parts: the modules by name.
        text: text of the program that they belong to.
        nearest: finds the tokens of the source that are nearest to entries.
    """

    def __init__(
        self,
        parts: Mapping[str, nn.Module] | None = None,
        text: str = "",
        nearest: Nearest | None = None,
    ) -> None:
        super().__init__()
        for name, part in (parts or {}).items():
            self.add_module(name, part)
        self._text = text
        self._nearest = nearest

    def described(self, text: str, nearest: Nearest | None = None) -> ProgramParts:
        """Return the same modules with the text of their program, and the source's tokens."""
        return ProgramParts(dict(self.named_children()), text, nearest)

    def __repr__(self) -> str:
        state = self.state_dict(prefix="program.")
        width = max(map(len, state), default=0)
        lines = [
            f"  {name.ljust(width)}  {str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
            for name, value in state.items()
        ]
        return "\n".join([*filter(None, [self._text]), *lines])

    def patterns(self) -> dict[str, torch.Tensor]:
        """Return the patterns of the additive parts, by part, in float32 and without gradient."""
        return {
            name: part.pattern().detach()
            for name, part in self.named_children()
            if isinstance(part, Adding)
        }

    def prompts(self) -> dict[str, torch.Tensor]:
        """Return the entries [P, d] that parts insert, by part, in float32, without gradient."""
        found = {
            name: part.inserted_entries()
            for name, part in self.named_children()
            if isinstance(part, Inserting)
        }
        return {name: entries for name, entries in found.items() if entries is not None}

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Plot added patterns, and prompts by the similarity of their entries.

        Entries of a prompt are named by the nearest tokens of the source's vocabulary, if they have
        the width of its embeddings; see :func:`graphprog.utils.plots.programs.plot_program`.
        """
        prompts = self.prompts()
        nearest = {name: self._nearest(value) for name, value in prompts.items() if self._nearest}
        return plot_program(self.patterns(), path, prompts, nearest)


class SourceTensors(nn.Module):
    """The tensors of the frozen source model, which all graphs and tasks over it share.

    They can move to another device, but keep their dtype and values: a conversion is refused.
    """

    def __init__(self) -> None:
        super().__init__()
        self._hash = WeightHash()

    def hash(self) -> str:
        """Return SHA-256 over name, dtype, shape and bytes of every tensor, as they are now."""
        return self._hash(self)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        for dtype in {tensor.dtype for _, tensor in _tensors(self)}:
            _require_kept(fn, torch.ones(1).to(dtype))
        nn.Module._apply(self, fn, recurse)
        return self


def _require_kept(fn: Callable[[torch.Tensor], torch.Tensor], probe: torch.Tensor) -> None:
    """Check that a function changes the place of a tensor at most.

    Raises:
        ProgramError: it changes the dtype, or loses the values.
    """
    result = fn(probe)
    if result.dtype != probe.dtype:
        kind = str(result.dtype)
        convert = f"copy.deepcopy(model).to({kind})"
        raise ProgramError(
            f"a compiled model cannot be converted to {kind}: the operations of its source were "
            f"captured for {probe.dtype}, and all tasks over the source share its weights",
            [
                f"convert a copy of the model and capture that: gp.capture({convert}, ...)",
                'train in lower precision: gp.fit(..., precision="bf16")',
                "export it, then gp.backends.onnx.quantize the file",
            ],
        )
    if result.is_meta or not torch.equal(result.cpu(), probe):
        raise ProgramError(
            "a compiled model cannot be emptied or moved to meta: all tasks over its source share "
            "the weights",
            ["print(graph.summary()) to see sizes without running the model"],
        )


class Weights(nn.Module):
    """Root of all tensors that a graph reads: ``source.*`` (frozen) and ``program.*``."""

    def __init__(self, source: SourceTensors, program: ProgramParts | None = None) -> None:
        super().__init__()
        self.source = source
        self.program = program if program is not None else ProgramParts()


def copied_tree(module: nn.Module, wanted: Container[str] | None = None) -> SourceTensors:
    """Copy a tree of modules over the same tensors, so that it can be changed.

    Args:
        module: the tree.
        wanted: paths of the tensors to include; None for all.
    """
    copy, packed = SourceTensors(), packed_weights(module)
    parts = {f"{path}.{name}" for path, one in packed.items() for name, _ in one.named_buffers()}
    holdings: list[tuple[str, torch.Tensor | PackedWeight]] = [*packed.items(), *_tensors(module)]
    for path, held in holdings:
        if path not in parts and (wanted is None or path in wanted):
            register(copy, path, held)
    return copy


def register(root: nn.Module, path: str, tensor: torch.Tensor | PackedWeight) -> None:
    """Register a tensor or packed weight at a dotted path; the modules on the way are made."""
    *parents, name = path.split(".")
    holder = root
    for parent in parents:
        if not hasattr(holder, parent):
            holder.add_module(parent, nn.Module())
        holder = getattr(holder, parent)
    if isinstance(tensor, PackedWeight):
        holder.add_module(name, tensor)
    elif isinstance(tensor, nn.Parameter):
        holder.register_parameter(name, tensor)
    else:
        holder.register_buffer(name, tensor)


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)
