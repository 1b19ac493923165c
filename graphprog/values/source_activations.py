"""Run a source graph up to an interface to get its activations there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import fx

from graphprog.analysis.token_inputs import lookups_of, vocabulary_lookups
from graphprog.errors import DataError, ProgramError
from graphprog.ir.fake import fake_tensor, fake_value
from graphprog.ir.graph import Graph
from graphprog.ir.inputs import check_type, inputs_of
from graphprog.ir.ops import ancestors
from graphprog.values.context import BuildContext


@dataclasses.dataclass(frozen=True)
class Lookup:
    """Token-id input of an interface, for the source's values of given ids there.

    Attributes:
        where: key of the interface, for messages.
        source: the graph without any program.
        node: node at the interface.
        ids: placeholder of the ids.
        size: number of rows of the embedding table.
    """

    where: str
    source: Graph
    node: fx.Node
    ids: fx.Node
    size: int

    @classmethod
    def of(cls, graph: Graph | None, where: str) -> Lookup:
        """Find the token-id input on which the value at an interface depends.

        Raises:
            ProgramError: there is no such input.
        """
        source, node = _source_of(graph, where)
        tokens = next(iter(vocabulary_lookups(lookups_of(ancestors(node)))), None)
        if tokens is None:
            raise ProgramError(
                f"{where}: its value does not depend on token ids",
                ["set init=gp.initializers.Activations(inputs), with real examples"],
            )
        return cls(where, source, node, tokens.ids, tokens.rows)

    def rows(self, context: BuildContext, numbers: Sequence[int]) -> torch.Tensor:
        """Entries at the interface for a sequence of tokens [n, ...], float32.

        Raises:
            ProgramError: an id is out of range, or the interface depends on other inputs.
        """
        inputs = self.inputs(numbers)
        return _run(context, self.source, self.node, inputs)[: len(numbers)]

    def inputs(self, numbers: Sequence[int]) -> list[torch.Tensor]:
        """All inputs of the source for a sequence of tokens; other ids are 0, masks are 1.

        Raises:
            ProgramError: an id is out of range, or the interface depends on other inputs.
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
                ['capture it with dynamic_axes={...: {0: "batch", 1: "length"}}'],
            )
        flat = torch.tensor([*numbers, *[0] * (room - len(numbers))], dtype=torch.int64)
        value = flat.to(fake_tensor(self.ids).dtype).reshape(*leading, length)
        return self._filled(value)

    def _filled(self, ids: torch.Tensor) -> list[torch.Tensor]:
        """All inputs: other ids are 0, masks are 1."""
        needed = set(ancestors(self.node))
        sizes = dict(zip(map(str, fake_tensor(self.ids).shape), ids.shape, strict=True))
        looked_up = {one.ids for one in lookups_of(needed)}
        found = []
        for node in self.source.placeholders:
            value = fake_value(node)
            if node is self.ids:
                found.append(ids)
                continue
            if node in needed and value.dtype.is_floating_point:
                raise ProgramError(
                    f"{self.where} does not depend on tokens alone but also on {node.target}",
                    ["set init=gp.initializers.Activations(inputs), with real examples"],
                )
            shape = [
                size if isinstance(size, int) else sizes.get(str(size), _guess(ids, axis))
                for axis, size in enumerate(value.shape)
            ]
            found.append(torch.full(shape, 0 if node in looked_up else 1, dtype=value.dtype))
        return found


def observed(context: BuildContext, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Entries at an interface for real examples [n, ...], float32.

    Raises:
        DataError: the examples do not match the inputs of the source.
    """
    source, node = _source_of(context.graph, context.where)
    specs = inputs_of(source)
    if len(inputs) != len(specs):
        raise DataError(
            f"{context.where}: {len(inputs)} inputs are given, but the graph takes "
            + ", ".join(map(str, specs))
        )
    for spec, value in zip(specs, inputs, strict=True):
        check_type(spec, value)
    return _run(context, source, node, inputs)


def _run(
    context: BuildContext, source: Graph, node: fx.Node, inputs: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Entries of all examples, concatenated."""
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
        ProgramError: the graph cannot run on these inputs; names the interface ``where``.
    """
    try:
        found = graph.evaluate(nodes, inputs)
    except (IndexError, RuntimeError) as error:
        shapes = ", ".join(str(tuple(item.shape)) for item in inputs)
        raise ProgramError(
            f"{where}: the source cannot run on inputs of shape {shapes}: {error}",
            [
                "give fewer tokens, or inputs of the size that the source takes",
                'capture it with dynamic_axes={...: {0: "batch", 1: "length"}}',
            ],
        ) from error
    return tuple(found[node].cpu() for node in nodes)


def _source_of(graph: Graph | None, where: str) -> tuple[Graph, fx.Node]:
    """The graph without any program, and the node at the interface."""
    if graph is None:
        raise ProgramError(
            f"{where}: this value cannot be initialized from activations of the source",
            ["use gp.initializers.Given(tensor)", "use gp.Learnable('normal', 0.02)"],
        )
    source = graph.source
    return source, source.nodes[source.interfaces()[where].node]


def _guess(ids: torch.Tensor, axis: int) -> int:
    """Guess the size of an axis that the ids do not determine from its position."""
    return ids.shape[axis] if axis < ids.ndim else 1
