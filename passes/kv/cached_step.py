"""One step of a graph with a KV cache: results of the new tokens, and the new cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from graphprog.errors import DataError
from graphprog.ir.graph import Graph

Values = Mapping[str, torch.Tensor]


def cached_step(
    prefill: Graph, decode: Graph, inputs: Values, cache: Values | None = None
) -> tuple[Values, Values]:
    """Run one of two graphs over the same weights.

    Args:
        prefill: from all tokens to their results and a cache; runs without a cache.
        decode: from all tokens and the cache of the first ones to results of the last ones.
        inputs: inputs of all tokens so far, by name; unknown names are ignored.
        cache: the cache that the previous step returned; None at first.

    Returns:
        The results by name of the tokens that are not in the cache, and the new cache.

    Raises:
        DataError: an input is missing, or the graph does not run on the inputs.
    """
    graph = decode if cache else prefill
    found = run_by_name(graph, {**inputs, **(cache or {})})
    return results_and_cache(dict(zip(graph.outputs, found, strict=True)), cache)


def results_and_cache(found: Mapping[str, Any], cache: Mapping[str, Any] | None) -> tuple[Any, Any]:
    """Split the outputs of a graph into results and cache."""
    kept = {name: value for name, value in (cache or {}).items() if name.startswith("cross_")}
    results: dict[str, Any] = {}
    for name, value in found.items():
        if name.startswith("present_"):
            kept[f"past_{name.removeprefix('present_')}"] = value
        elif name.startswith("cross_"):
            kept[name] = value
        else:
            results[name] = value
    return results, kept


def run_by_name(graph: Graph, given: Values) -> tuple[Any, ...]:
    """Run a graph on inputs by name, on the device of its weights.

    Raises:
        DataError: an input is missing, or the graph does not run on the inputs.
    """
    device = graph.device
    wanted = [str(node.target) for node in graph.placeholders]
    if missing := [name for name in wanted if name not in given]:
        raise DataError(f"{graph.name} also takes {', '.join(missing)}")
    try:
        return graph.run([given[name].to(device) for name in wanted])
    except (IndexError, RuntimeError) as error:
        own = [name for name in given if not name.startswith(("past_", "cross_"))]
        shapes = ", ".join(f"{name} {list(given[name].shape)}" for name in own)
        raise DataError(
            f"{graph.name} cannot run on {shapes}: {error}", ["use fewer tokens"]
        ) from error
