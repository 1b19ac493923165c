"""Compute only the entries of values that are read."""

from __future__ import annotations

import dataclasses

import torch

from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.parts.cost import flops_of
from graphprog.ir.sizes import same_shape
from graphprog.passes.base import Pass
from graphprog.passes.selection.beginnings import bound_reads
from graphprog.passes.selection.push_down import Stop, push_down
from graphprog.passes.selection.unflatten import unflatten_layers
from graphprog.rewriting.edges import uses_of
from graphprog.rewriting.editor import Editor
from graphprog.spec.checks import require_texts
from graphprog.spec.registry import spec

_aten = torch.ops.aten


@spec("only-what-is-read")
@dataclasses.dataclass(frozen=True)
class OnlyWhatIsRead(Pass):
    """Move selections up, so that the entries that nobody reads are not computed.

    The last token, the words of a verbalizer, the source classes of a label mapping and the class
    token after the last block are selections; they move through layers, norms, and the queries of
    attention. Values that some entries are read of have no interfaces any more, and the program
    cannot be erased from the result: it is for running. Equal up to the rounding of products of
    fewer rows.

    Attributes:
        keep: interfaces whose values are computed as they are, by key or alias.

    Example:
        >>> task = gp.compile(language, gp.Program(align=gp.LastToken()))
        >>> fewer = gp.passes.OnlyWhatIsRead()(task.graph)
        >>> assert torch.allclose(fewer(ids), task(ids), atol=1e-6)
    """

    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_texts(self.kind, "keep", self.keep)

    def requires(self, graph: Graph) -> None:
        """Check the names of interfaces.

        Raises:
            InterfaceError: one of them is unknown.
        """
        for name in self.keep:
            graph.interfaces().resolve(name)

    def run(self, graph: Graph) -> Graph:
        """Move every selection as far as it may go."""
        found, _ = self.moved(graph)
        return found

    def moved(self, graph: Graph) -> tuple[Graph, list[Stop]]:
        """Return the graph of what is read, and where selections moved no further."""
        edit = Editor(graph, str(self))
        table = graph.interfaces()
        kept = [edit.node(table.resolve(name).node) for name in self.keep]
        edit.erase_dead(kept)
        whole = {*kept, *edit.alive(name for mode in graph.modes for name in mode.nodes)}
        shapes = {node: node.meta["val"] for node in edit.code.nodes if node.op != "output"}
        unflatten_layers(edit.code, whole, {"made_by": str(self)})
        bound_reads(edit, graph, {"made_by": str(self)})
        stops = push_down(edit.code, whole, meta={"made_by": str(self)}, weights=graph.weights)
        for name in self.keep:
            site = edit.sites[table.resolve(name).key]
            site.edges = set(uses_of(site.node))
        alive = set(edit.code.nodes)
        gone = [
            key
            for key, site in edit.sites.items()
            if site.node not in alive
            or not same_shape(fake_tensor(site.node), shapes[site.node])
            or any(
                one not in alive or site.node not in one.all_input_nodes for one, _ in site.edges
            )
        ]
        edit.drop_sites(gone)
        edit.insertions.clear()
        return edit.finish(), stops


def flops_saved(before: Graph, after: Graph) -> tuple[int, int]:
    """Return the FLOPs of a graph, and those of what is left of it, at the sizes of capture."""
    return tuple(sum(flops_of(_used(one).code).values()) for one in (before, after))  # type: ignore[return-value]


def _used(graph: Graph) -> Graph:
    edit = Editor(graph)
    edit.erase_dead()
    return edit.finish()
