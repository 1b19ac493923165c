"""What a part of a program is built for."""

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
    """The value at an interface, what is read beside it, and where random numbers come from.

    Values are fake tensors: they have shape, dtype and device, and hold no numbers.

    Attributes:
        value: at the interface [B, ...], in its dtype; sizes that vary are symbolic.
        where: key of the interface, for messages.
        generator: source of all randomness, on the CPU.
        read: values of what the part ``reads``, in that order.
        layer: input [..., n], weight [m, n] and, where it has one, bias [m] of the affine layer
            that gives the value, where the module takes these in place of the value.
        graph: what the interface lies in; None where initial values may not look at it.
        nodes: names of the nodes at the interfaces that share the module, most often one.
        axis: of the value along which the entries of a prompt stand; None where it is no prompt.
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
        """Shape of the value without its batch axis; axes of varying length count as 1."""
        sizes: tuple[int | torch.SymInt, ...] = tuple(self.value.shape[1:])
        return tuple(1 if isinstance(size, torch.SymInt) else size for size in sizes)

    def of_shape(self, sizes: Sequence[int | torch.SymInt]) -> BuildContext:
        """The same for a value [B, *sizes] of the same dtype."""
        value = self.value
        mode = running(value.fake_mode) if isinstance(value, FakeTensor) else nullcontext()
        with mode:
            return dataclasses.replace(self, value=value.new_empty((value.shape[0], *sizes)))

    def with_entries(self, axis: int, length: int) -> BuildContext:
        """The same for ``length`` entries along an axis of the value."""
        sizes = list(self.value.shape[1:])
        sizes[axis - 1] = length
        return dataclasses.replace(self.of_shape(sizes), axis=axis)

    def placed(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows [n, ...], one per entry, in the shape of the value without its batch axis."""
        return rows if self.axis is None else rows.movedim(0, self.axis - 1)
