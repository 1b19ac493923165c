"""What an instrument is pointed at: a model, its inputs, and the interfaces to read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import InterfaceError, ProgramError
from graphprog.ir.graph import Graph
from graphprog.ir.inputs import check_type, inputs_of
from graphprog.ir.interface import Interface
from graphprog.passes.attention.expose_attention import exposed

Model = Graph | ReprogrammedModel
Inputs = torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor]
"""Tensors in order, one tensor, or tensors by name of the input."""

Places = str | Sequence[str]
"""Interfaces: keys or aliases; ``hidden[*]`` and ``hidden[2:5]`` name several."""

_RANGE = re.compile(r"\[-?\d*:-?\d*\]")


def graph_of(model: Model, at: Places = ()) -> Graph:
    """Return the graph that a model runs: with its program, if it is a compiled one.

    Args:
        model: a graph or a compiled model.
        at: names to read; attention is written out where they are inside of it.

    Raises:
        InterfaceError: a name is inside something that is not attention.
        ProgramError: it is neither a graph nor a compiled model.
    """
    if isinstance(model, ReprogrammedModel):
        model = model.graph
    if not isinstance(model, Graph):
        raise ProgramError(
            f"a graph or a compiled model is needed, not a {type(model).__name__}",
            ["capture the model first: graph = gp.capture(model, (example,))"],
        )
    return exposed(model, [at] if isinstance(at, str) else at)


def places_of(graph: Graph, at: Places) -> dict[str, Interface]:
    """Return interfaces by name, in the order given; a wildcard gives the alias of each.

    Raises:
        InterfaceError: a name is unknown or ambiguous, or there is none.
    """
    table, found = graph.interfaces(), dict[str, Interface]()
    for name in [at] if isinstance(at, str) else at:
        if "*" not in name and not _RANGE.search(name):
            found[name] = table.resolve(name)
            continue
        stem = name.partition("[")[0]
        for place in table.resolve_all(name):
            found[_alias(place, stem)] = place
    if not found:
        raise InterfaceError("at= names no interface", ['say which: at="hidden[*]"'])
    return found


def _alias(place: Interface, stem: str) -> str:
    """Return the alias that a wildcard means, with its tower if it has one; else the key."""
    stems = {one.partition("[")[0]: one for one in reversed(place.aliases)}
    return stems.get(stem) or next(
        (alias for one, alias in stems.items() if one.endswith(f".{stem}")), place.key
    )


def flat_inputs(graph: Graph, inputs: Inputs) -> list[torch.Tensor]:
    """Return the tensors of a call in order, checked, on the device of the weights.

    Raises:
        DataError: a tensor is missing, or has another shape or dtype than the graph takes.
    """
    if isinstance(inputs, Mapping):
        flat = graph.call_spec.bind((), dict(inputs))
    else:
        given: tuple[Any, ...] = (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)
        specs = inputs_of(graph)
        flat = [*given] if len(given) == len(specs) else graph.call_spec.bind(given, {})
    for spec, value in zip(inputs_of(graph), flat, strict=True):
        check_type(spec, value)
    return [value.to(graph.device) for value in flat]
