"""Compute what depends on frozen tensors alone once, and store it."""

from __future__ import annotations

import dataclasses

import torch
from torch import fx

from graphprog.analysis.constants import (
    computed_constants,
    reads_through_views,
    stored_constants,
)
from graphprog.ir.graph import Graph
from graphprog.passes.base import Pass
from graphprog.passes.optimize.source_edit import SourceEdit, require_source
from graphprog.spec.checks import require_integer
from graphprog.spec.registry import spec
from graphprog.utils.torch_modes import plain_modes

LIMIT = 2**28
"""Bytes of stored values, by default."""


@spec("fold-constants")
@dataclasses.dataclass(frozen=True)
class FoldConstants(Pass):
    """Store values that depend on the source's tensors alone, instead of computing them.

    An optimization of a *source*, before any program: the result is a source graph of its own,
    with its own fingerprint, equal to the first bit for bit. Other tensors stay shared; those that
    nothing reads any more are dropped. Interfaces inside the computations vanish.

    Attributes:
        limit: bytes of all stored values together; smaller values are stored first.

    Example:
        >>> folded = gp.passes.FoldConstants()(graph)
        >>> assert torch.equal(folded(images), graph(images))
    """

    limit: int = LIMIT

    def __post_init__(self) -> None:
        require_integer(self.kind, "limit", self.limit, 0)

    def requires(self, graph: Graph) -> None:
        """Refuse a graph that has a program in it."""
        require_source(self.kind, graph)

    def run(self, graph: Graph) -> Graph:
        """Store every constant at which computations end."""
        return with_constants(graph, self.limit)


@plain_modes()
def with_constants(graph: Graph, limit: int = LIMIT) -> Graph:
    """Return a graph that reads constants instead of computing them; itself if there are none.

    A program in it stays trainable, but can no longer be erased: such a graph is for running.

    Args:
        graph: the graph, with its tensors where they will be.
        limit: bytes of all stored values together.
    """
    nodes = stored_constants(graph, limit)
    if not nodes:
        return graph
    source = SourceEdit(graph, "fold-constants", "folded")
    edit, stored = source.edit, []
    for node, value in zip(nodes, computed_constants(graph, nodes), strict=True):
        old = edit.node(node.name)
        new = source.store(value, old, f"value_{node.name}")
        edit.substitute(old, new, fused=True)
        stored.append(new)
    _copy_outputs(source, stored)
    return source.finish()


def _copy_outputs(source: SourceEdit, stored: list[fx.Node]) -> None:
    """Return copies of constants, which a caller may write to."""
    edit = source.edit
    output = edit.code.output_node()
    for slot, node in enumerate(list(output.args[0])):  # type: ignore[arg-type]
        if reads_through_views(node, stored):
            assert isinstance(node, fx.Node)
            copy = source.call(torch.ops.aten.clone.default, (node,), output, node)
            edit.redirect(node, {(output, slot)}, copy, before={(copy, 0)})
