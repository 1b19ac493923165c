"""Build context: the value, inputs and random generator for which a part is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch._subclasses.fake_tensor import FakeTensor

from graphprog.ir.graph import Graph
from graphprog.rewriting.fake_tracing import running


@dataclasses.dataclass(frozen=True)
class BuildContext:
    """Context in which the module of a part is built: value, inputs, and random generator.

    Values are fake tensors: they have shape, dtype and device, but no data.

    Attributes:
        value: value at the interface [B, ...], in its dtype; dynamic sizes are symbolic.
        where: key of the interface, for messages.
        generator: random generator, on the CPU.
        read: values of the inputs that the part ``reads``, in that order.
        layer: input [..., n], weight [m, n] and, if any, bias [m] of the affine layer that computes
            the value, if the module takes these in place of the value.
        graph: graph of the interface; None if initial values cannot depend on it.
        nodes: names of the nodes at the interfaces that share the module, usually one.
        axis: axis of the value along which prompt entries are inserted; None without entries.
    """

    value: torch.Tensor
    where: str = "value"
    generator: torch.Generator = dataclasses.field(default_factory=torch.Generator)
    read: tuple[torch.Tensor, ...] = ()
    layer: tuple[torch.Tensor, ...] = ()
    graph: Graph | None = None
    nodes: tuple[str, ...] = ()
    axis: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value without its batch axis, with 1 for dynamic axes."""
        sizes: tuple[int | torch.SymInt, ...] = tuple(self.value.shape[1:])
        return tuple(1 if isinstance(size, torch.SymInt) else size for size in sizes)

    def of_shape(self, sizes: Sequence[int | torch.SymInt]) -> BuildContext:
        """Copy for a value [B, *sizes] of the same dtype."""
        value = self.value
        mode = running(value.fake_mode) if isinstance(value, FakeTensor) else nullcontext()
        with mode:
            return dataclasses.replace(self, value=value.new_empty((value.shape[0], *sizes)))

    def with_entries(self, axis: int, length: int) -> BuildContext:
        """Copy for ``length`` entries along an axis of the value."""
        sizes = list(self.value.shape[1:])
        sizes[axis - 1] = length
        return dataclasses.replace(self.of_shape(sizes), axis=axis)

    def placed(self, rows: torch.Tensor) -> torch.Tensor:
        """Move rows [n, ...], one per entry, to the axis of the entries."""
        return rows if self.axis is None else rows.movedim(0, self.axis - 1)
