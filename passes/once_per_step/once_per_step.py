"""Compute once what is the same in every row of a batch."""

from __future__ import annotations

import dataclasses

from torch import fx

from graphprog.errors import PassError
from graphprog.ir.dependence.batch_rows import batch_of
from graphprog.ir.graph import Graph
from graphprog.passes.base import Pass
from graphprog.passes.once_per_step.split import Splitting
from graphprog.passes.selection.push_down import Stop
from graphprog.passes.selection.unflatten import unflatten_layers
from graphprog.rewriting.editor import Editor
from graphprog.spec.registry import spec


@dataclasses.dataclass(frozen=True)
class Once:
    """A graph in which a prompt is computed once.

    Attributes:
        graph: the graph; that which was given if nothing was split.
        stops: where a prompt and samples are computed together, and why.
        after: number of the entries of samples before the prompt, where it has some.
        assumed: inputs of which the first entries are taken to be the same in every row.
    """

    graph: Graph
    stops: tuple[Stop, ...]
    after: int = 0
    assumed: tuple[str, ...] = ()


@spec("once-per-step")
@dataclasses.dataclass(frozen=True)
class OncePerStep(Pass):
    """Compute a prompt before causal attention once, not once for each row of the batch.

    The hidden states, keys and values of a prompt before all samples depend on the prompt alone,
    if the mask hides later entries from it. They are computed with one row; samples attend to its
    keys and values as a prefix, and gradients flow through both. Where masks, positions or padding
    make the prompt differ between rows, or attention sees both ways, the graph stays as it is.
    Values that are split have no interfaces any more, and the program cannot be erased from the
    result: it is for running. Equal up to the rounding of products of fewer rows.

    Example:
        >>> prompt = gp.Concatenative(at="tokens", length=4)
        >>> task = gp.compile(language, gp.Program([prompt]))
        >>> once = gp.passes.OncePerStep()(task.graph)
        >>> assert torch.allclose(once(ids), task(ids), atol=1e-5)
    """

    def run(self, graph: Graph) -> Graph:
        """Split what can be split."""
        return self.split(graph).graph

    def split(self, graph: Graph, alike: int = 0) -> Once:
        """Return the graph, and where a prompt and samples are computed together, and why.

        Args:
            graph: the graph.
            alike: number of the first entries of whole numbers [B, S, ...] given as inputs that the
                caller checks to be the same in every row, such as a token for the beginning.

        Raises:
            PassError: an operation does not run on a part of its operands; this is a defect.
        """
        edit = Editor(graph, str(self))
        edit.erase_dead()
        if batch_of(edit.code) is None:
            return Once(graph, ())
        opaque = frozenset(edit.alive(name for mode in graph.modes for name in mode.nodes))
        unflatten_layers(edit.code, opaque, {"made_by": str(self)})
        splitting = Splitting(edit.code, graph.weights, opaque, {"made_by": str(self)}, alike)
        try:
            splitting.run()
        except Exception as error:
            raise PassError(
                f"values cannot be split: {type(error).__name__}: {error}",
                ["this is a defect of the pass: report it with graph.text"],
            ) from error
        stops, after = tuple(splitting.stops), splitting.after
        if not splitting.crossed:
            return Once(graph, stops, after)
        _drop_lost_sites(edit)
        edit.insertions.clear()
        assumed = tuple(str(node.target) for node in splitting.ranges.assumed)
        return Once(edit.finish(), stops, after, assumed)


def _drop_lost_sites(edit: Editor) -> None:
    """Remove the interfaces of values that are not computed, or read from another node."""
    alive: set[fx.Node] = set(edit.code.nodes)
    edit.drop_sites(
        [
            key
            for key, site in edit.sites.items()
            if site.node not in alive
            or any(
                one not in alive or site.node not in one.all_input_nodes for one, _ in site.edges
            )
        ]
    )
