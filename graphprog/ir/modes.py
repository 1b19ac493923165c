"""What a graph does differently in training: other values, and new values of buffers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import fx

from graphprog.errors import DataError

if TYPE_CHECKING:
    from graphprog.ir.graph import Graph


@dataclasses.dataclass(frozen=True)
class Mode:
    """A value of the graph that training computes in another way.

    Attributes:
        evaluating: node that everything reads.
        training: node that everything reads in training; dead code otherwise.
        updates: tensor of the program to the node of the value it has after a run in training.
    """

    evaluating: str
    training: str
    updates: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes it is about."""
        return (self.evaluating, self.training, *self.updates.values())


def switch(graph: Graph, code: fx.Graph, mapping: Mapping[fx.Node, fx.Node]) -> None:
    """Let a copy of a graph's code compute what training does, and return the updates as well."""
    for mode in graph.modes:
        old = mapping[graph.nodes[mode.evaluating]]
        old.replace_all_uses_with(mapping[graph.nodes[mode.training]])
    output = code.output_node()
    news = [graph.nodes[name] for mode in graph.modes for name in mode.updates.values()]
    output.args = ((*output.args[0], *(mapping[node] for node in news)),)  # type: ignore[misc]


@torch.no_grad()
def write_updates(graph: Graph, values: tuple[torch.Tensor, ...]) -> None:
    """Store what a run in training returned for the program's buffers.

    Raises:
        DataError: they are not finite, as the variance of a single value is not.
    """
    paths = [path for mode in graph.modes for path in mode.updates]
    for path, value in zip(paths, values, strict=True):
        if not bool(value.isfinite().all()):
            raise DataError(
                f"{path} would no longer be finite after this batch",
                ["train on batches of two rows or more: drop_last=True", "check the data"],
            )
    for path, value in zip(paths, values, strict=True):
        graph.weights.get_buffer(path).copy_(value)
