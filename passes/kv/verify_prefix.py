"""The proof that the prefix of a text replaces the text itself: both are run and compared."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from graphprog.analysis.input_meaning import compared_with
from graphprog.errors import PassError
from graphprog.ir.graph import Graph
from graphprog.utils.numerics import difference
from graphprog.values.source_activations import Lookup
from graphprog.values.text_prefix import lookup_of, run_on

PROBE = 5
TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-4}
"""Tolerance relative to the largest magnitude; 0.02 in half precision."""


def prove(
    before: Graph, after: Graph, where: str, ids: Sequence[int], nodes: Sequence[str]
) -> None:
    """Compare a query after the prefix of a text with a query after the text itself.

    Args:
        before: the graph without the prefix.
        after: the graph with it.
        where: interface key of attention.
        ids: the text.
        nodes: names of the keys and values [B, H, S, d] in the graph without the prefix.

    Raises:
        PassError: the text sees the query, or something other than attention carries it.
    """
    lookup = lookup_of(before, where)
    queries = _queries(lookup)
    _refuse_sight(before, where, [(*ids, *query) for query in queries], len(ids), nodes)
    outputs = [number for number, node in enumerate(before.output_nodes) if _is_tensor(node)]
    whole = run_on(before, lookup, (*ids, *queries[0]), _names(before, outputs))
    short = run_on(after, lookup, queries[0], _names(after, outputs))
    for name, wanted, found in zip(_titles(before, outputs), whole, short, strict=True):
        for axis in range(found.ndim):
            wanted = wanted.narrow(axis, wanted.shape[axis] - found.shape[axis], found.shape[axis])
        gap = difference(wanted, found)
        if not gap.within(TOLERANCES.get(found.dtype, 0.02)):
            remedies = [
                "use a model in which nothing but attention reads other tokens",
                "at='attention[*]': every layer needs the prefix",
            ]
            if before.insertions:
                remedies.append("leave out other parts that change what attention reads")
            raise PassError(
                f"{where}: a query after the prefix of these {len(ids)} tokens gives another "
                f"{name} than the whole text (largest difference {gap.absolute:.3g})",
                remedies,
            )


def _queries(lookup: Lookup) -> list[list[int]]:
    """Return two random queries with the same ending."""
    generator = torch.Generator().manual_seed(0)
    # ids that the model looks for, such as the end of a text, are in both
    marks = [number for number in compared_with(lookup.ids) if 0 <= number < lookup.size]
    rows = torch.randint(lookup.size, (2, PROBE), generator=generator).tolist()
    return [[*row, *marks] for row in rows]


def _refuse_sight(
    graph: Graph, where: str, texts: Sequence[Sequence[int]], length: int, nodes: Sequence[str]
) -> None:
    """Refuse a model in which tokens after a text change its keys and values, bit for bit."""
    lookup = lookup_of(graph, where)
    found = [run_on(graph, lookup, text, tuple(nodes)) for text in texts]
    for name, one, other in zip(nodes, *found, strict=True):
        if not torch.equal(one[:, :, :length], other[:, :, :length]):
            raise PassError(
                f"{where}: the text sees what follows it: its {name} depends on the query",
                ["use a causal model: its keys and values do not depend on later tokens"],
            )


def _is_tensor(node: object) -> bool:
    value = getattr(node, "meta", {}).get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _names(graph: Graph, outputs: Sequence[int]) -> tuple[str, ...]:
    return tuple(graph.output_nodes[number].name for number in outputs)


def _titles(graph: Graph, outputs: Sequence[int]) -> tuple[str, ...]:
    return tuple(graph.outputs[number] for number in outputs)
