"""The tokens of the vocabulary that are nearest to vectors, such as the entries of a prompt."""

from __future__ import annotations

import torch
from torch import fx

from graphprog.analysis.token_inputs import lookups_of, vocabulary_lookups
from graphprog.ir.graph import Graph
from graphprog.ir.memory.packed import tensor_at


def nearest_tokens(
    graph: Graph, vectors: torch.Tensor, count: int = 2
) -> list[list[tuple[str, float]]]:
    """Return the tokens whose embeddings have the largest cosine similarity to vectors.

    Args:
        graph: the source model.
        vectors: [P, d].
        count: tokens for each vector.

    Returns:
        For each vector, texts of tokens (numbers without a tokenizer) with their similarities, the
        nearest first; empty if the graph looks no ids up in a table of width d.
    """
    lookups = vocabulary_lookups(lookups_of(graph.code.nodes))
    tables = [lookup.node.args[0] for lookup in lookups]
    nodes = [table for table in tables if isinstance(table, fx.Node) and table.op == "get_attr"]
    paths = [str(node.target) for node in nodes]
    found = [tensor_at(graph.weights, path).float().cpu() for path in paths]
    table = next((one for one in found if one.shape[-1] == vectors.shape[-1]), None)
    if table is None:
        return []
    unit = torch.nn.functional.normalize
    similar = unit(vectors.detach().float().cpu(), dim=-1) @ unit(table, dim=-1).T
    best = similar.topk(min(count, len(table)), dim=-1)
    return [
        [(_text(graph, int(token)), float(value)) for token, value in zip(*row, strict=True)]
        for row in zip(best.indices, best.values, strict=True)
    ]


def _text(graph: Graph, token: int) -> str:
    if graph.tokenizer is None:
        return f"token {token}"
    return repr(graph.tokenizer.decode([token]))
