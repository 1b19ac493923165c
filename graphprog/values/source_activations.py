"""Running a source graph up to an interface, to see what values have there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import fx

from graphprog.errors import DataError, ProgramError
from graphprog.ir.fake import fake_tensor, fake_value
from graphprog.ir.graph import Graph
from graphprog.ir.inputs import check_type, inputs_of
from graphprog.ir.ops import ancestors, ids_of, rows_of
from graphprog.values.context import BuildContext


@dataclasses.dataclass(frozen=True)
class Lookup:
    """An input of token ids, and what the source makes of ids at an interface.

    Attributes:
        where: key of the interface, for messages.
        source: the graph without any program.
        node: at the interface.
        ids: the input of ids.
        size: rows of the table in which they are looked up.
    """

    where: str
    source: Graph
    node: fx.Node
    ids: fx.Node
    size: int

    @classmethod
    def of(cls, graph: Graph | None, where: str) -> Lookup:
        """Find the input from which the value at an interface is looked up.

        Raises:
            ProgramError: there is none, or its tokens do not stand for entries.
        """
        source, node = _source_of(graph, where)
        tables = [
            (rows_of(one), ids) for one in ancestors(node) if (ids := ids_of(one)) is not None
        ]
        if not tables:
            raise ProgramError(
                f"{where}: nothing there is looked up by token ids",
                ["init=gp.initializers.Activations(inputs) takes real values of this place"],
            )
        size, ids = max(tables, key=lambda pair: pair[0])
        return cls(where, source, node, ids, size)

    def rows(self, context: BuildContext, numbers: Sequence[int]) -> torch.Tensor:
        """The entries at the interface for some tokens in a row [n, ...], float32.

        Raises:
            ProgramError: a number is no token; or the interface needs more than tokens.
        """
        inputs = self.inputs(numbers)
        return _run(context, self.source, self.node, inputs)[: len(numbers)]

    def inputs(self, numbers: Sequence[int]) -> list[torch.Tensor]:
        """All inputs of the source for some tokens in a row; other ids are 0, masks are 1.

        Raises:
            ProgramError: a number is no token; or the interface needs more than tokens.
        """
        wrong = [number for number in numbers if not 0 <= number < self.size]
        if wrong:
            raise ProgramError(
                f"{self.where}: there is no token {wrong[0]}; the vocabulary of "
                f"{self.ids.target} has {self.size}"
            )
        shape: list[int | torch.SymInt] = list(fake_tensor(self.ids).shape)
        length = shape[-1] if isinstance(shape[-1], int) else max(len(numbers), 2)
        count = max(-(-len(numbers) // length), 1)
        leading = [size if isinstance(size, int) else 1 for size in shape[:-1]]
        if leading and not isinstance(shape[0], int):
            leading[0] = count  # chunks of a fixed length fill a batch
        room = torch.Size([*leading, length]).numel()
        if len(numbers) > room:
            raise ProgramError(
                f"{self.where}: the graph takes {room} tokens at once, not {len(numbers)}",
                ['capture it with dynamic_axes={..: {0: "batch", 1: "length"}}'],
            )
        flat = torch.tensor([*numbers, *[0] * (room - len(numbers))], dtype=torch.int64)
        value = flat.to(fake_tensor(self.ids).dtype).reshape(*leading, length)
        return self._filled(value)

    def _filled(self, ids: torch.Tensor) -> list[torch.Tensor]:
        """All inputs: other ones that are looked up are 0, masks are 1."""
        needed = set(ancestors(self.node))
        sizes = dict(zip(map(str, fake_tensor(self.ids).shape), ids.shape, strict=True))
        looked_up = {ids_of(node) for node in needed}
        found = []
        for node in self.source.placeholders:
            value = fake_value(node)
            if node is self.ids:
                found.append(ids)
                continue
            if node in needed and value.dtype.is_floating_point:
                raise ProgramError(
                    f"{self.where} does not depend on tokens alone but on {node.target}",
                    ["init=gp.initializers.Activations(inputs) takes real values of this place"],
                )
            shape = [
                size if isinstance(size, int) else sizes.get(str(size), _guess(ids, axis))
                for axis, size in enumerate(value.shape)
            ]
            found.append(torch.full(shape, 0 if node in looked_up else 1, dtype=value.dtype))
        return found


def observed(context: BuildContext, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """The entries at an interface for real examples [n, ...], float32.

    Raises:
        DataError: they are not what the source takes.
    """
    source, node = _source_of(context.graph, context.where)
    specs = inputs_of(source)
    if len(inputs) != len(specs):
        raise DataError(
            f"{context.where}: {len(inputs)} inputs are given, the graph takes "
            + ", ".join(map(str, specs))
        )
    for spec, value in zip(specs, inputs, strict=True):
        check_type(spec, value)
    return _run(context, source, node, inputs)


def _run(
    context: BuildContext, source: Graph, node: fx.Node, inputs: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Entries of all examples, one behind another."""
    (value,) = values_at(source, [node], inputs, context.where)
    assert context.axis is not None
    if value.ndim > len(context.shape):
        value = value.movedim(context.axis, 1).flatten(0, 1)  # the entries of all examples
    else:
        value = value.movedim(context.axis - 1, 0)
    return value.to(torch.float32)


def values_at(
    graph: Graph, nodes: Sequence[fx.Node], inputs: Sequence[torch.Tensor], where: str
) -> tuple[torch.Tensor, ...]:
    """Values of nodes for given inputs, on the CPU; see :meth:`Graph.evaluate`.

    Raises:
        ProgramError: it cannot run on these inputs; names the interface ``where``.
    """
    try:
        found = graph.evaluate(nodes, inputs)
    except (IndexError, RuntimeError) as error:
        shapes = ", ".join(str(tuple(item.shape)) for item in inputs)
        raise ProgramError(
            f"{where}: the source cannot run on inputs of shape {shapes}: {error}",
            [
                "fewer tokens at once, or inputs as large as the source takes",
                'capture it with dynamic_axes={..: {0: "batch", 1: "length"}}',
            ],
        ) from error
    return tuple(found[node].cpu() for node in nodes)


def _source_of(graph: Graph | None, where: str) -> tuple[Graph, fx.Node]:
    """The graph without any program, and the node at the interface."""
    if graph is None:
        raise ProgramError(
            f"{where}: this value cannot start from what the source computes",
            ["gp.initializers.Given(tensor)", "gp.Learnable('normal', 0.02)"],
        )
    source = graph.source
    return source, source.nodes[source.interfaces()[where].node]


def _guess(ids: torch.Tensor, axis: int) -> int:
    """The size of an axis that is not tied to the ids', by its place."""
    return ids.shape[axis] if axis < ids.ndim else 1
