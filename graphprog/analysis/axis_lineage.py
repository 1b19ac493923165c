"""Axis lineage: positions of inserted entries in later values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.ops import bound, schema_name
from graphprog.ir.sizes import same_shape, same_size
from graphprog.rewriting.refusal import RefusalError

_ALONG_A_DIMENSION = {
    "aten::" + name
    for name in (
        *("cat", "constant_pad_nd", "flip", "gather", "index", "index_select", "narrow", "pad"),
        *("repeat", "repeat_interleave", "roll", "scatter", "select_scatter", "slice"),
        *("slice_scatter", "sort", "take_along_dim", "unfold"),
    )
}
_EVERYWHERE = ("aten::as_strided", "aten::masked_select", "aten::grid_sampler", "aten::upsample")


class Lineage:
    """An axis that an insertion extended, followed from there to the outputs.

    Attributes:
        grown: the extended dimensions of every value that has the axis.
        whole: of these, the dimensions that are the axis itself, not merged with another.
        blocked: by value, the earlier operation that moved entries along the axis, and the
            reason.
    """

    def __init__(self, graph: Graph, number: int, axis: int) -> None:
        """Follow one insertion.

        Args:
            graph: the graph with the insertion.
            number: number of the insertion, of kind ``axis``.
            axis: axis of the value at its interface.
        """
        insertion = graph.insertions[number]
        self.before = insertion.values_before
        self.later = [one.values_before for one in graph.insertions[number + 1 :]]
        start = graph.nodes[insertion.result]
        self.length = self._value(start).shape[axis]
        self.grown = {start: frozenset({axis})}
        self.whole = {start: frozenset({axis})}
        self.blocked: dict[fx.Node, tuple[fx.Node, str]] = {}
        placed = {
            graph.nodes[one.result]: graph.nodes[one.original]
            for one in graph.insertions
            if one.kind in ("value", "axis")
        }
        parts = {f"program.{one.name}" for one in graph.insertions if one.kind != "output"}
        for node in graph.code.nodes:
            if node in placed and node is not start:
                self._inherit(node, placed[node])
            elif node.op == "call_function" and node.meta.get("graphprog") not in parts:
                self._follow(node)

    def axes_of(self, node: fx.Node) -> frozenset[int]:
        """Return the dimensions of a value with the entries at their original positions.

        Raises:
            RefusalError: a dimension is longer, but the positions of the entries are unknown.
        """
        if node in self.blocked:
            raise RefusalError(*self.blocked[node])
        grown = self.grown.get(node, frozenset())
        if grown - self.whole.get(node, frozenset()):
            raise RefusalError(node, "its length is computed from that of the axis")
        return grown

    def _inherit(self, node: fx.Node, old: fx.Node) -> None:
        """Copy the axes of the input of a program part to its result."""
        for known in (self.grown, self.whole, self.blocked):
            if old in known:
                known[node] = known[old]  # type: ignore[assignment]

    def _follow(self, node: fx.Node) -> None:
        sources = [read for read in node.all_input_nodes if read in self.grown]
        value = self._value(node)
        if not sources or value is None:
            return
        if isinstance(value, list | tuple):  # several at once: as they are when taken apart
            self.grown[node] = frozenset().union(*(self.grown[one] for one in sources))
            self.whole[node] = frozenset()
        elif not isinstance(value, torch.Tensor):
            return
        elif node.name in self.before:
            pairs = enumerate(zip(value.shape, self.before[node.name].shape, strict=True))
            self.grown[node] = frozenset(dim for dim, pair in pairs if not same_size(*pair))
            self.whole[node] = _dims_of(value, [self.length]) & self.grown[node]
        else:
            self._recognize(node, value, sources)
        if not self.grown[node]:
            del self.grown[node], self.whole[node]
        else:
            self._judge(node, sources)

    def _recognize(self, node: fx.Node, value: torch.Tensor, sources: list[fx.Node]) -> None:
        """Recognize the axis in a value added after the insertion, such as an alignment's."""
        for known in (self.grown, self.whole):
            same = next((one for one in sources if same_shape(value, fake_tensor(one))), None)
            sizes = [fake_tensor(one).shape[dim] for one in sources for dim in known[one]]
            known[node] = known[same] if same is not None else _dims_of(value, sizes)
        sizes = [value.shape[dim] for dim in self.grown[node]]
        if same is None and any(isinstance(size, int) for size in sizes):
            self.blocked[node] = (
                node,
                "it cannot be determined whether its length is the axis",
            )

    def _judge(self, node: fx.Node, sources: list[fx.Node]) -> None:
        """Record operands that are blocked, and whether this operation moves entries."""
        for one in sources:
            if one in self.blocked:
                self.blocked.setdefault(node, self.blocked[one])
            elif moves(node, one, self.grown[one]):
                self.blocked.setdefault(node, (node, "it moves entries along the axis"))

    def _value(self, node: fx.Node) -> Any:
        """Return the fake value of a node right after the insertion, before all later ones."""
        for before in self.later:
            if node.name in before:
                return before[node.name]
        return node.meta.get("val")


def moves(node: fx.Node, source: fx.Node, dims: frozenset[int]) -> bool:
    """Whether an operation may move entries of an operand along some dimensions.

    Args:
        node: the operation.
        source: the operand.
        dims: dimensions of the operand.
    """
    name = schema_name(node)
    arguments = bound(node)
    if name.startswith(_EVERYWHERE):
        return True
    if "stride" in arguments and name != "aten::as_strided":
        strides = arguments["stride"]
        return any(stride != 1 for stride in (strides if isinstance(strides, list) else [strides]))
    if name not in _ALONG_A_DIMENSION:
        return False
    rank = fake_tensor(source).ndim
    if name == "aten::slice" and _takes_all(arguments):
        return False
    return bool({dim % rank for dim in _named_dims(name, arguments, rank)} & dims)


def _named_dims(name: str, arguments: dict[str, Any], rank: int) -> Iterable[int]:
    if name == "aten::index":
        return [dim for dim, index in enumerate(arguments["indices"]) if index is not None]
    if name in ("aten::pad", "aten::constant_pad_nd"):
        pad = arguments["pad"]
        return [rank - 1 - number // 2 for number, size in enumerate(pad) if size != 0]
    if name == "aten::repeat":
        repeats = arguments["repeats"]
        return [dim - len(repeats) + rank for dim, size in enumerate(repeats) if size != 1]
    if name == "aten::unfold":
        return [arguments["dimension"]]
    dims = arguments.get("dims", arguments.get("dim"))
    if dims is None or dims == []:
        return range(rank)  # of the flattened value
    return [dims] if isinstance(dims, int) else dims


def _takes_all(arguments: dict[str, Any]) -> bool:
    end = arguments["end"]
    whole = end is None or (isinstance(end, int) and end >= 2**62)
    return arguments["start"] in (None, 0) and whole and arguments["step"] == 1


def _dims_of(value: torch.Tensor, sizes: Iterable[Any]) -> frozenset[int]:
    """Return the dimensions with one of these sizes."""
    wanted = list(sizes)
    return frozenset(
        dim
        for dim, size in enumerate(value.shape)
        if any(same_size(size, other) for other in wanted)
    )
