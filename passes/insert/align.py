"""R4: align the outputs to target logits."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphprog.alignments.base import Alignment
from graphprog.errors import PassError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph, Insertion, Site
from graphprog.ir.interface import Edge
from graphprog.passes.base import Pass
from graphprog.passes.insert.operands import input_named
from graphprog.passes.insert.padded_marks import padded_marks
from graphprog.rewriting.edges import Slot, uses_of
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.inliner import inline
from graphprog.spec.registry import spec
from graphprog.values.allocation import build
from graphprog.values.context import BuildContext

PART = "align"


@spec("align")
@dataclasses.dataclass(frozen=True)
class Align(Pass):
    """Make the graph return target logits, computed from an output or a feature.

    The single new output is called ``logits``. Operations that only the old outputs need become
    dead code, which is not run.

    Attributes:
        by: the alignment; ``by.at`` names the interface that it reads.
        seed: seed of random initial values.

    Example:
        >>> aligned = gp.passes.Align(gp.FixedMap(classes=2))(graph)
        >>> aligned(images).shape
        torch.Size([4, 2])
    """

    by: Alignment
    seed: int = 0

    after = ("insert", "replace-input", "replace-tokens")

    def requires(self, graph: Graph) -> None:
        """Check that the outputs are not aligned yet."""
        if any(insertion.kind == "output" for insertion in graph.insertions):
            raise PassError("the graph's outputs are already aligned")

    def run(self, graph: Graph) -> Graph:
        """Append the alignment."""
        if self.by.is_identity:
            return graph
        place = graph.interfaces().resolve(self.by.steps[0].at)
        edit = Editor(graph, str(self))
        value = edit.node(place.node)
        known, reading = set(uses_of(value)), set[Slot]()
        result = value
        for number, step in enumerate(self.by.steps):
            read = result
            result = self._step(edit, graph, step, read, place.key, number)
            if number == 0:
                reading = set(uses_of(value)) - known
        old = tuple(item.name if isinstance(item, fx.Node) else item for item in graph.output_nodes)
        edit.set_outputs([result], reading)
        edit.read_by(place.key, reading)
        undo = RestoreOutputs(old, graph.outputs, graph.out_spec)
        edit.record(Insertion("output", PART, place.key, result.name, read.name, undo))
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

    def _step(
        self, edit: Editor, graph: Graph, by: Alignment, value: fx.Node, place: str, number: int
    ) -> fx.Node:
        """Append one alignment to a value, and return its result."""
        layer = affine(value) if by.takes_layer else ()
        others = [self._marks(edit, graph, by, value, name) for name in by.reads(graph)]
        context = BuildContext(
            fake_tensor(value),
            place,
            torch.Generator().manual_seed(self.seed + number),
            read=tuple(map(fake_tensor, others)),
            layer=tuple(map(fake_tensor, layer)),
        )
        name = PART if by is self.by else f"{PART}_{number}"
        (result,) = inline(edit, name, build(by, context), [*(layer or (value,)), *others], place)
        return result

    def _marks(
        self, edit: Editor, graph: Graph, by: Alignment, value: fx.Node, name: str
    ) -> fx.Node:
        """Return an input that the alignment reads, with a mark for each inserted entry."""
        given, fill = input_named(edit.code, name), by.inserted_mark
        return given if fill is None else padded_marks(edit, graph, value, given, fill, PART)


@dataclasses.dataclass(frozen=True)
class RestoreOutputs:
    """Undo of an alignment: the graph returns the outputs of the model again.

    Attributes:
        nodes: names of the nodes, or constants.
        names: names of the outputs.
        tree: their pytree shape.
    """

    nodes: tuple[Any, ...]
    names: tuple[str, ...]
    tree: pytree.TreeSpec

    def __call__(self, edit: Editor) -> None:
        """Restore the old outputs and their names."""
        edit.set_outputs(
            [edit.node(item) if isinstance(item, str) else item for item in self.nodes]
        )
        edit.changes |= {"outputs": self.names, "out_spec": self.tree}


def affine(value: fx.Node) -> tuple[fx.Node, ...]:
    """Return input, weight and bias of an affine layer; empty if the value is not its result.

    The value is then needed no more, and is not computed.
    """
    if value.target is not torch.ops.aten.linear.default or value.kwargs:
        return ()
    return tuple(node for node in value.args if isinstance(node, fx.Node))
