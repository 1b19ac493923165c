"""How well a changed source agrees with the one it was made from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch

from graphprog.analysis.token_inputs import table_rows
from graphprog.ir.graph import Graph
from graphprog.ir.inputs import inputs_of, random_inputs

_ROWS = 8


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Differences of the results of two graphs on the same inputs.

    Attributes:
        difference: largest difference of an output, over the largest magnitude of that output.
        same: number of rows, or positions, whose largest logit is the same one.
        rows: number of rows or positions; 0 if no output has several entries on its last axis.
    """

    difference: float
    same: int
    rows: int

    def __str__(self) -> str:
        text = f"outputs within {self.difference:.1e} of the largest"
        return f"{text}, labels agree in {self.same} of {self.rows}" if self.rows else text


def agreement(
    graph: Graph, other: Graph, inputs: Sequence[torch.Tensor] | None = None
) -> Agreement:
    """Compare two graphs of the same inputs, in evaluation.

    Args:
        graph: the one to measure by.
        other: the other one.
        inputs: all tensor inputs, in order; random ones by default, of 8 rows where rows vary.
    """
    given = example_inputs(graph) if inputs is None else inputs
    with torch.no_grad():
        pairs = [
            (one.detach().cpu().double(), two.detach().cpu().double())
            for one, two in zip(_run(graph, given), _run(other, given), strict=True)
            if isinstance(one, torch.Tensor) and one.is_floating_point() and one.numel()
        ]
    found = [
        float((two - one).abs().max() / one.abs().max().clamp(min=1e-30)) for one, two in pairs
    ]
    ranked = next(((one, two) for one, two in pairs if one.ndim > 1), None)
    same = rows = 0
    if ranked is not None:
        axis = 1 if ranked[0].ndim == 4 else -1
        if ranked[0].shape[axis] > 1:
            first, second = (value.argmax(axis) for value in ranked)
            same, rows = int((first == second).sum()), first.numel()
    return Agreement(
        max((math.inf if math.isnan(d) else d for d in found), default=0.0), same, rows
    )


def example_inputs(graph: Graph, rows: int = _ROWS) -> tuple[torch.Tensor, ...]:
    """Return random inputs of a graph, on its device; ids from the whole table that is read."""
    specs, tables = inputs_of(graph), table_rows(graph)
    generator = torch.Generator().manual_seed(0)
    given = random_inputs(specs, rows, (0.0, 1.0), 0)
    return tuple(
        (
            torch.randint(tables[spec.name], value.shape, generator=generator, dtype=value.dtype)
            if spec.name in tables and tables[spec.name] > 2
            else value
        ).to(graph.device)
        for spec, value in zip(specs, given, strict=True)
    )


def _run(graph: Graph, inputs: Sequence[torch.Tensor]) -> tuple[Any, ...]:
    return graph.run([value.to(graph.device) for value in inputs])
