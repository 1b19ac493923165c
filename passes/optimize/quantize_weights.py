"""Store weights of a source in 8 or 4 bits."""

from __future__ import annotations

import dataclasses

import torch
from torch import fx

from graphprog.errors import PassError, ProgramError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.memory.packed import PackedWeight, held_at, packed_weights
from graphprog.ir.ops import schema_name
from graphprog.ir.weights import Weights, copied_tree, register
from graphprog.passes.base import Pass
from graphprog.passes.optimize.source_edit import require_source
from graphprog.rewriting.editor import Editor
from graphprog.spec.checks import require_integer
from graphprog.spec.registry import spec

BITS = (8, 4)
_READERS = {
    **dict.fromkeys((f"aten::conv{n}d" for n in (1, 2, 3)), (1, 0)),
    "aten::linear": (1, 0),
    "aten::embedding": (0, 0),
    "aten::addmm": (2, 1),
    "aten::mm": (1, 1),
    "aten::matmul": (1, 1),
}
"""For operations, which argument is the weight, and which of its axes holds the channels."""
_TRANSPOSES = frozenset({"aten::t", "aten::transpose", "aten::permute", "aten::numpy_T"})


@spec("quantize-weights")
@dataclasses.dataclass(frozen=True)
class QuantizeWeights(Pass):
    """Store the weights of linear layers, convolutions and tables in 8 or 4 bits.

    A weight is computed in its own dtype where it is read, and again for the gradient, which keeps
    none of them; all other values stay in full precision. In 8 bits every output channel, or row of
    a table, has a scale; in 4 bits every 32 entries of it. What other operations read, and what
    would not get smaller, stays as it is. The result is a source of its own, with its own
    fingerprint: programs trained on it belong to it.

    Attributes:
        bits: 8 or 4.

    Raises:
        PassError: the graph has a program in it, or weights without values or in few bits already;
            a weight is not finite.

    Example:
        >>> smaller = gp.passes.QuantizeWeights(bits=8)(graph)
        >>> smaller.summary().bytes < graph.summary().bytes
        True
    """

    bits: int = 8

    def __post_init__(self) -> None:
        require_integer(self.kind, "bits", self.bits, 1)
        if self.bits not in BITS:
            raise ProgramError(f"{self.kind}.bits must be 8 or 4, not {self.bits}")

    def requires(self, graph: Graph) -> None:
        """Refuse a graph with a program in it, or without weights in full precision."""
        require_source(self.kind, graph)
        source = graph.weights.source
        if packed := packed_weights(source):
            path, one = next(iter(packed.items()))
            raise PassError(
                f"{graph.name} has weights in {one.bits} bits already, such as {path}",
                ["begin with the captured graph, in full precision"],
            )
        for path, tensor in source.named_parameters():
            if tensor.is_meta:
                raise PassError(
                    f"weight {path} of {graph.name} has no values: it is on the meta device",
                    ["load the weights into the model, and capture it again"],
                )

    def run(self, graph: Graph) -> Graph:
        """Replace the weights, tied ones by one of their own."""
        made: dict[tuple[int, int], PackedWeight] = {}
        new: dict[str, PackedWeight] = {}
        for node in graph.code.find_nodes(op="get_attr"):
            path, axis = str(node.target), _channels(node)
            held = held_at(graph.weights, path)
            if axis is None or not path.startswith("source.") or not _is_dense(held):
                continue
            assert isinstance(held, torch.Tensor)
            key = (id(held), axis)
            if key not in made:
                made[key] = _packed(held, self.bits, axis, path)
            if made[key].bytes < held.numel() * held.element_size():
                new[path.removeprefix("source.")] = made[key]
        if not new:
            return graph
        edit = Editor(graph, str(self))
        old = graph.weights.source
        kept = {name for name, _ in old.named_parameters(remove_duplicate=False)}
        kept |= {name for name, _ in old.named_buffers(remove_duplicate=False)}
        source = copied_tree(old, kept - new.keys())
        for path, packed in new.items():
            register(source, path, packed)
        edit.changes["weights"] = Weights(source)
        return edit.finish()


def _is_dense(held: object) -> bool:
    plain = isinstance(held, torch.Tensor) and held.layout == torch.strided
    return plain and isinstance(held, torch.Tensor) and held.is_floating_point()


def _packed(held: torch.Tensor, bits: int, axis: int, path: str) -> PackedWeight:
    if not held.isfinite().all():
        raise PassError(
            f"weight {path.removeprefix('source.')} has values that are not finite, so it has no "
            f"scale in {bits} bits",
            ["check the checkpoint of the model"],
        )
    return PackedWeight(held, bits, axis)


def _channels(weight: fx.Node) -> int | None:
    """Return the axis of a weight's channels, if all that read it are layers or lookups."""
    value, axes = fake_tensor(weight), set()
    for user in weight.users:
        axis = _axis_for(weight, user, value.ndim)
        if axis is None:
            return None
        axes.add(axis)
    if value.ndim < 2 or not axes or (1 in axes and value.ndim != 2):
        return None
    return min(axes)


def _axis_for(weight: fx.Node, user: fx.Node, rank: int) -> int | None:
    name = schema_name(user)
    if (
        name in _TRANSPOSES
        and rank == 2
        and fake_tensor(user).shape[::-1] == fake_tensor(weight).shape
    ):
        axis = _channels(user)
        return None if axis is None else 1 - axis
    slot, axis = _READERS.get(name, (None, 0))
    alone = [number for number, arg in enumerate(user.args) if arg is weight] == [slot]
    return axis if alone and weight not in user.kwargs.values() else None
