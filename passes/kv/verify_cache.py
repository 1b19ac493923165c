"""The proof that a graph with a KV cache computes the same as the graph without one."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import fx

from graphprog.analysis.token_inputs import lookups_of
from graphprog.errors import DataError, PassError
from graphprog.ir.fake import fake_tensor, fake_value
from graphprog.ir.graph import Graph
from graphprog.ir.sizes import same_size
from graphprog.passes.kv.cached_step import Values, cached_step, run_by_name
from graphprog.passes.kv.kv_layout import KVLayout
from graphprog.passes.kv.verify_prefix import TOLERANCES
from graphprog.rewriting.refusal import RefusalError
from graphprog.utils.numerics import Difference, difference

Advance = Callable[[Values, Any], tuple[Values, Any]]
"""From inputs of all tokens so far and a cache to results by name and the new cache."""

LENGTHS = (4, 5, 11)
"""Tokens read at first, then one more, then several more."""


def prove(source: Graph, prefill: Graph, decode: Graph) -> None:
    """Read tokens in three parts with a KV cache, and compare with reading them at once.

    Args:
        source: the graph without a cache.
        prefill: the graph that reads the first part.
        decode: the graph that reads the others.

    Raises:
        PassError: a result differs; names the first operation that differs.
    """
    try:
        for part in parts_of(source, functools.partial(cached_step, prefill, decode)):
            if not all(gap.within(part.tolerance) for gap in part.gaps.values()):
                raise _differing(source, decode if part.done else prefill, part)
    except DataError as error:
        raise PassError(
            f"{source.name} cannot have a KV cache: it does not run on the last tokens "
            f"alone: {error.what}",
            ["select a token from the results, not in the graph"],
        ) from error


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the tokens, compared with the whole text.

    Attributes:
        done: number of tokens read before.
        given: inputs of the whole text.
        inputs: inputs of this part, with the cache.
        gaps: difference of each result.
        tolerance: tolerance for the dtype of the results.
    """

    done: int
    given: dict[str, torch.Tensor]
    inputs: dict[str, Any]
    gaps: dict[str, Difference]
    tolerance: float


def parts_of(source: Graph, advance: Advance, rows: int = 2) -> Iterator[Part]:
    """Read a text of random tokens part by part.

    Args:
        source: the graph that reads it at once.
        advance: reads the tokens that are not in the cache.
        rows: number of texts.

    Raises:
        PassError: the graph does not run on a text of that length.
    """
    axis = KVLayout.of(source.code).axis
    whole_text = inputs_of_length(source, axis, LENGTHS[-1], rows)
    with torch.no_grad():
        whole = dict(zip(source.outputs, _read(source, whole_text), strict=True))
        cache: Any = None
        done = 0
        for length in LENGTHS:
            part = _first(source, whole_text, axis, length)
            results, after = advance(part, cache)
            gaps = {
                name: _gap(whole[name].cpu(), value.cpu(), _dims(source, name, axis), done)
                for name, value in results.items()
            }
            kinds = [value.dtype for value in results.values() if value.is_floating_point()]
            tolerance = TOLERANCES.get(kinds[0], 0.02) if kinds else 0.0
            yield Part(done, whole_text, {**part, **(cache or {})}, gaps, tolerance)
            cache, done = after, length


def _read(source: Graph, whole_text: Values) -> tuple[Any, ...]:
    try:
        return run_by_name(source, whole_text)
    except DataError as error:
        raise PassError(
            f"whether {source.name} can have a KV cache cannot be verified: {error.what}",
            [f"use a model that reads {LENGTHS[-1]} tokens"],
        ) from error


def inputs_of_length(
    graph: Graph, axis: torch.SymInt, length: int, rows: int = 2
) -> dict[str, torch.Tensor]:
    """Return inputs by name for rows of tokens: random ids, masks of 1."""
    generator = torch.Generator().manual_seed(0)
    tables: dict[fx.Node | None, int] = {}
    for one in lookups_of(graph.code.nodes):
        tables[one.ids] = min(one.rows, tables.get(one.ids, one.rows))
    found = {}
    for node in graph.placeholders:
        value = fake_value(node)
        shape = [_length(size, axis, length) for size in value.shape]
        if value.dtype.is_floating_point:
            made = torch.randn(shape, generator=generator)
        elif node in tables:
            made = torch.randint(tables[node], shape, generator=generator)
        else:
            made = torch.ones(shape)
        first = value.shape[0] if shape else 1
        batched = not isinstance(first, int) and not same_size(first, axis)
        found[str(node.target)] = (made[:rows] if batched else made).to(value.dtype)
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
    """Return the inputs of the first tokens."""
    found = dict(given)
    for node in graph.placeholders:
        for dim, size in enumerate(fake_tensor(node).shape):
            if same_size(size, axis):
                name = str(node.target)
                found[name] = found[name].narrow(dim, 0, length)
    return found


def _dims(graph: Graph, output: str, axis: torch.SymInt) -> list[int]:
    """Return the dimensions of a result that are tokens."""
    node = graph.output_nodes[graph.outputs.index(output)]
    return [dim for dim, size in enumerate(fake_tensor(node).shape) if same_size(size, axis)]


def _gap(whole: torch.Tensor, found: torch.Tensor, dims: list[int], done: int) -> Difference:
    """Return the difference between a value of some tokens and that part of the whole value."""
    for dim in dims:
        if whole.shape[dim] < done + found.shape[dim]:
            return Difference(float("inf"), float("inf"))
        whole = whole.narrow(dim, done, found.shape[dim])
    return difference(whole, found)


def _differing(source: Graph, graph: Graph, part: Part) -> PassError:
    """Return the error that names the first operation that differs from the whole text."""
    axis = KVLayout.of(source.code).axis
    values = {
        node.name: [
            dim for dim, size in enumerate(fake_tensor(node).shape) if same_size(size, axis)
        ]
        for node in source.code.nodes
        if node.op == "call_function"
        and node.name in graph.nodes
        and isinstance(node.meta.get("val"), torch.Tensor)
    }
    dims = {name: found for name, found in values.items() if len(found) == 1}

    def run(code: Graph, given: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        inputs = [given[str(node.target)] for node in code.placeholders]
        values = code.evaluate([code.nodes[name] for name in dims], inputs)
        return [value.cpu() for value in values.values()]

    whole, found = run(source, part.given), run(graph, part.inputs)
    first = next(
        (
            name
            for name, one, other in zip(dims, whole, found, strict=True)
            if not _gap(one, other, dims[name], part.done).within(part.tolerance)
        ),
        str(source.output_nodes[0]),
    )
    why = "its result for a token depends on more than the keys and values of earlier tokens"
    refusal = RefusalError(source.nodes[first], why)
    return PassError(f"{source.name} cannot have a KV cache: {refusal}")
