"""Let images flow in channels-last memory, which convolutions of CPUs and GPUs prefer."""

from __future__ import annotations

import dataclasses

import torch
from torch import fx

from graphprog.errors import PassError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.memory.packed import PackedWeight
from graphprog.ir.ops import schema_name
from graphprog.ir.weights import Weights, copied_tree
from graphprog.passes.base import Pass
from graphprog.rewriting.edges import uses_of
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.fake_tracing import fake_mode_of
from graphprog.spec.registry import spec


@spec("channels-last")
@dataclasses.dataclass(frozen=True)
class ChannelsLast(Pass):
    """Lay out image inputs and the weights of 2-D convolutions with the channel innermost.

    An optimization of a *source*, before any program: the same operations on the same numbers in
    another order of memory, equal up to rounding. Convolution weights are copied once.

    Example:
        >>> laid = gp.passes.ChannelsLast()(graph)
        >>> assert torch.allclose(laid(images), graph(images), atol=1e-5)
    """

    def requires(self, graph: Graph) -> None:
        """Refuse a graph that has a program in it."""
        if graph.insertions:
            raise PassError(
                "channels-last changes the source, and this graph has a program in it",
                ["change the captured graph first, then compile the program into the result"],
            )

    def run(self, graph: Graph) -> Graph:
        """Rearrange every float input of rank 4 and every weight of a 2-D convolution."""
        convolutions = [n for n in graph.code.nodes if schema_name(n) == "aten::conv2d"]
        if not convolutions:
            return graph
        edit = Editor(graph, str(self))
        for node in edit.code.find_nodes(op="placeholder"):
            value = fake_tensor(node)
            if value.ndim == 4 and value.is_floating_point() and node.users:
                _rearrange_input(edit, node)
        source = copied_tree(graph.weights.source)
        for convolution in convolutions:
            path = str(getattr(convolution.args[1], "target", ""))
            if path.startswith("source."):
                *parents, name = path.removeprefix("source.").split(".")
                holder = source.get_submodule(".".join(parents))
                old = getattr(holder, name)
                if isinstance(old, PackedWeight):
                    continue
                old = old.detach()
                new = torch.nn.Parameter(
                    old.contiguous(memory_format=torch.channels_last), requires_grad=False
                )
                holder.register_parameter(name, new)
        edit.changes["weights"] = Weights(source)
        return edit.finish()


def _rearrange_input(edit: Editor, node: fx.Node) -> None:
    edges = set(uses_of(node))
    with edit.code.inserting_after(edit.code.find_nodes(op="placeholder")[-1]):
        moved = edit.code.call_function(
            torch.ops.aten.contiguous.default,
            (node,),
            {"memory_format": torch.channels_last},
        )
    with fake_mode_of(fake_tensor(node)):
        moved.meta["val"] = fake_tensor(node).contiguous(memory_format=torch.channels_last)
    edit.redirect(node, edges, moved, before={(moved, 0)})
    edit.add_site(f"input:{node.target}", node)
