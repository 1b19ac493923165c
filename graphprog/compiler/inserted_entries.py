"""Positions of inserted entries in the outputs of a task."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphprog.analysis.axis_lineage import Lineage
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import ProgramError
from graphprog.manipulations.prompts.concatenative import Concatenative
from graphprog.rewriting.refusal import RefusalError


@dataclasses.dataclass(frozen=True)
class Inserted:
    """Entries of one output that a part of the program inserted.

    Attributes:
        part: name of the part of the program.
        axis: axis of the output.
        offset: position of the first entry; -1 if they are the last entries.
        length: number of entries.
    """

    part: str
    axis: int
    offset: int
    length: int

    def remove(self, value: torch.Tensor) -> torch.Tensor:
        """Return the value without these entries."""
        size = value.shape[self.axis]
        first = size - self.length if self.offset == -1 else self.offset
        behind = value.narrow(self.axis, first + self.length, size - first - self.length)
        if first == 0:
            return behind
        return torch.cat([value.narrow(self.axis, 0, first), behind], self.axis)

    def fill(self, value: torch.Tensor, number: int) -> torch.Tensor:
        """Return a value of the original length with ``number`` inserted at these positions."""
        size = value.shape[self.axis]
        first = size if self.offset == -1 else self.offset
        shape = list(value.shape)
        shape[self.axis] = self.length
        before = value.narrow(self.axis, 0, first)
        behind = value.narrow(self.axis, first, size - first)
        return torch.cat([before, value.new_full(shape, number), behind], self.axis)


def inserted(task: ReprogrammedModel, output: str = "logits") -> tuple[Inserted, ...]:
    """Return the entries that a program inserted into an output, in order of insertion.

    Removing them in reverse order leaves the entries of the source model's output.

    Args:
        task: the compiled program.
        output: name of one of the outputs; see ``task.graph.outputs``.

    Raises:
        ProgramError: there is no such output, or the positions cannot be determined, because an
            operation before the output cuts, shifts, reorders or repeats the axis.

    Example:
        >>> writer = gp.compile(language, gp.Program([gp.Concatenative(at="tokens", length=4)]))
        >>> [one.part for one in gp.losses.inserted(writer)]
        ['concatenative']
    """
    graph = task.graph
    if output not in graph.outputs:
        raise ProgramError(
            f"the task has no output {output!r}; it returns {', '.join(graph.outputs)}"
        )
    node = graph.output_nodes[graph.outputs.index(output)]
    if not isinstance(node, fx.Node):
        return ()
    specs = [part for part in task.spec.lowered() if isinstance(part, Concatenative)]
    steps = [number for number, one in enumerate(graph.insertions) if one.kind == "axis"]
    found: list[Inserted] = []
    for number, spec in zip(steps, specs, strict=True):
        try:
            axes = Lineage(graph, number, spec.axis).axes_of(node)
        except RefusalError as refusal:
            raise ProgramError(
                f"the positions of the entries that part {graph.insertions[number].name!r} "
                f"inserted into output {output!r} cannot be determined: {refusal}",
                ["read an output or interface before that operation"],
            ) from refusal
        part = graph.insertions[number].name
        found += [Inserted(part, axis, spec.offset, spec.length) for axis in sorted(axes)]
    return tuple(found)


def without_inserted(value: torch.Tensor, entries: tuple[Inserted, ...]) -> torch.Tensor:
    """Remove all inserted entries from an output."""
    for one in reversed(entries):
        value = one.remove(value)
    return value


def original(task: ReprogrammedModel, outputs: Any) -> Any:
    """Return the outputs of a task without inserted entries, with the same structure.

    Args:
        task: the compiled program.
        outputs: the outputs of the task.

    Raises:
        ProgramError: as raised by :func:`inserted` for any of the outputs.

    Example:
        >>> writer = gp.compile(language, gp.Program([gp.Concatenative(at="tokens", length=4)]))
        >>> gp.losses.original(writer, writer(ids)).shape  # the logits of the six tokens
        torch.Size([2, 6, 256])
    """
    flat, tree = pytree.tree_flatten(outputs)
    return pytree.tree_unflatten(
        [
            without_inserted(value, inserted(task, name))
            for name, value in zip(task.graph.outputs, flat, strict=True)
        ],
        tree,
    )
