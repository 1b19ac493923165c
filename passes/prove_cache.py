"""The proof that a graph with a KV cache computes what the graph without it does."""

from __future__ import annotations

import torch
from torch import fx

from graphprog.backends.base import difference
from graphprog.cached import Cached, Values
from graphprog.errors import DataError, PassError
from graphprog.graph import Graph, executable
from graphprog.lookups import ids_of, rows_of
from graphprog.passes.cache_slots import Slots
from graphprog.passes.prove_memory import TOLERANCES
from graphprog.passes.refusal import RefusalError
from graphprog.passes.stretch import same_size

LENGTHS = (4, 5, 11)
"""Tokens that are read at first, then one more, then several more."""


def prove(cached: Cached) -> None:
    """Read tokens in three parts, keeping keys and values, and compare with reading them at once.

    Raises:
        PassError: a result differs; names the operation at which it begins to.
    """
    source = cached.source
    axis = Slots.of(source.code).axis
    given = inputs_of_length(source, axis, LENGTHS[-1])
    with torch.no_grad():
        whole = dict(zip(source.outputs, source.run(list(given.values())), strict=True))
        memory: Values | None = None
        done = 0
        for length in LENGTHS:
            part = _first(source, given, axis, length)
            graph = cached.decode if memory else cached.prefill
            try:
                found, after = cached.results(part, memory)
            except DataError as error:
                raise PassError(
                    f"{source.name} cannot have a KV cache: it does not run on the last "
                    f"{length - done} of {length} tokens alone: {error.what}",
                    ["pick a token from the results, not in the graph"],
                ) from error
            wrong = [
                name
                for name, value in found.items()
                if not _agrees(whole[name], value, _dims(source, name, axis), done)
            ]
            if wrong:
                raise _differing(source, graph, given, {**part, **(memory or {})}, axis, done)
            memory, done = after, length


def inputs_of_length(graph: Graph, axis: torch.SymInt, length: int) -> dict[str, torch.Tensor]:
    """Inputs for two rows of tokens: ids at random, masks of 1; by name."""
    generator = torch.Generator().manual_seed(0)
    tables: dict[fx.Node | None, int] = {}
    for node in graph.code.nodes:
        if (ids := ids_of(node)) is not None:
            tables[ids] = min(rows_of(node), tables.get(ids, rows_of(node)))
    found = {}
    for node in graph.placeholders:
        value = node.meta["val"]
        shape = [_length(size, axis, length) for size in value.shape]
        if value.dtype.is_floating_point:
            made = torch.randn(shape, generator=generator)
        elif node in tables:
            made = torch.randint(tables[node], shape, generator=generator)
        else:
            made = torch.ones(shape)
        found[str(node.target)] = made.to(value.dtype)
    return found


def _length(size: int | torch.SymInt, axis: torch.SymInt, length: int) -> int:
    if isinstance(size, int):
        return size
    if same_size(size, axis):
        return length
    return int(size.node.hint)


def _first(
    graph: Graph, given: dict[str, torch.Tensor], axis: torch.SymInt, length: int
) -> dict[str, torch.Tensor]:
    """The inputs of the first tokens."""
    found = dict(given)
    for node in graph.placeholders:
        for dim, size in enumerate(node.meta["val"].shape):
            if same_size(size, axis):
                name = str(node.target)
                found[name] = found[name].narrow(dim, 0, length)
    return found


def _dims(graph: Graph, output: str, axis: torch.SymInt) -> list[int]:
    """The dimensions of a result that count tokens."""
    node = graph.output_nodes[graph.outputs.index(output)]
    return [dim for dim, size in enumerate(node.meta["val"].shape) if same_size(size, axis)]


def _agrees(whole: torch.Tensor, found: torch.Tensor, dims: list[int], done: int) -> bool:
    """Whether a value of some tokens is that part of the value of all."""
    for dim in dims:
        if whole.shape[dim] < done + found.shape[dim]:
            return False
        whole = whole.narrow(dim, done, found.shape[dim])
    return difference(whole, found).within(TOLERANCES.get(found.dtype, 0.02))


def _differing(
    source: Graph,
    graph: Graph,
    given: dict[str, torch.Tensor],
    part: dict[str, torch.Tensor],
    axis: torch.SymInt,
    done: int,
) -> PassError:
    """The error that names where tokens begin to be other than in the whole text."""
    names = {
        node.name: [dim for dim, size in enumerate(node.meta["val"].shape) if same_size(size, axis)]
        for node in source.code.nodes
        if node.op == "call_function"
        and node.name in graph.nodes
        and isinstance(node.meta.get("val"), torch.Tensor)
    }
    probed = [name for name, dims in names.items() if len(dims) == 1]
    whole = executable(source, tuple(probed))(*given.values())
    inputs = [part[str(node.target)] for node in graph.placeholders]
    found = executable(graph, tuple(probed))(*inputs)
    values = zip(probed, whole, found, strict=True)
    first = next(
        (name for name, one, other in values if not _agrees(one, other, names[name], done)),
        str(source.output_nodes[0]),
    )
    why = "what it gives for a token depends on more than keys and values of those before"
    refusal = RefusalError(source.nodes[first], why)
    return PassError(f"{source.name} cannot have a KV cache: {refusal}")
