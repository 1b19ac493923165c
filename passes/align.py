"""R4: align the outputs."""

from __future__ import annotations

import dataclasses

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphprog.alignments import Alignment
from graphprog.errors import PassError
from graphprog.graph import Graph, Insertion, Site
from graphprog.interface import Edge
from graphprog.passes.base import Pass
from graphprog.passes.edges import uses_of
from graphprog.passes.editor import Editor
from graphprog.passes.inline import inline
from graphprog.spec import spec

PART = "align"


@spec("align")
@dataclasses.dataclass(frozen=True)
class Align(Pass):
    """Let the graph return target logits, computed from an output or a feature.

    The one new output is called ``logits``. What only the old outputs need is dead code from
    then on, and is not run.

    Attributes:
        by: the alignment; ``by.on`` says what it reads.
        seed: of random initial values.
    """

    by: Alignment
    seed: int = 0

    after = ("insert", "replace-input", "replace-tokens")

    def requires(self, graph: Graph) -> None:
        """A graph is aligned once."""
        if any(insertion.kind == "output" for insertion in graph.insertions):
            raise PassError("the graph's outputs are already aligned")

    def run(self, graph: Graph) -> Graph:
        """Append the alignment."""
        if self.by.is_identity:
            return graph
        place = graph.interfaces().resolve(self.by.on)
        edit = Editor(graph, str(self))
        value = edit.node(place.node)
        module = self.by.build(value.meta["val"], torch.Generator().manual_seed(self.seed))
        known = set(uses_of(value))
        (result,) = inline(edit, PART, module, [value], place.key)
        reading = set(uses_of(value)) - known
        old = tuple(item.name if isinstance(item, fx.Node) else item for item in graph.output_nodes)
        edit.set_outputs([result], reading)
        edit.record(
            Insertion(
                "output",
                PART,
                place.key,
                result.name,
                place.node,
                old=(old, graph.outputs, graph.out_spec),
            )
        )
        edit.changes |= {
            "outputs": ("logits",),
            "out_spec": pytree.tree_flatten(0)[1],
        }
        edit.drop_sites(key for key in graph.sites if key.startswith("output:"))
        aligned = edit.finish()
        output = aligned.code.output_node().name
        site = Site(result.name, (Edge(output, 0),))
        return dataclasses.replace(
            aligned,
            sites={**aligned.sites, "output:logits": site},
            aliases={**aligned.aliases, "logits": "output:logits"},
        )
