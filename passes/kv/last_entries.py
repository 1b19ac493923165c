"""Computing only the last entries of a value."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from graphprog.ir.fake import fake_tensor, fake_value
from graphprog.ir.ops import schema_name
from graphprog.ir.sizes import SLICE_END, Size, same_size
from graphprog.rewriting.edges import leaves_of, set_leaf
from graphprog.rewriting.editor import Editor

_ENTRYWISE = {
    "aten::" + name
    for name in (
        *("add", "sub", "rsub", "mul", "div", "neg", "abs", "log", "exp", "pow", "remainder"),
        *("minimum", "maximum", "clamp", "where", "masked_fill", "to", "_to_copy", "clone"),
        *("eq", "ne", "lt", "le", "gt", "ge", "alias", "contiguous", "floor_divide"),
        *("cos", "sin", "sqrt", "rsqrt", "square"),
        *("logical_and", "logical_or", "logical_not", "logical_xor"),
        *("bitwise_and", "bitwise_or", "bitwise_not", "__and__", "__or__"),
    )
}
_FILLED = {"aten::ones", "aten::zeros", "aten::full", "aten::new_ones", "aten::new_zeros"}


def length_of(edit: Editor, size: Size, part: str) -> fx.Node | None:
    """Return a size from an input, before all operations; None if no input has it."""
    for node in edit.code.find_nodes(op="placeholder"):
        for dim, found in enumerate(fake_tensor(node).shape):
            if same_size(found, size):
                first = next(one for one in edit.code.nodes if one.op != "placeholder")
                return edit.call(torch.ops.aten.sym_size.int, (node, dim), first, part)
    return None


class LastEntries:
    """Compute the last ``kept`` entries of values along an axis.

    A mask compares positions: its last rows are computed from the last positions, so that the whole
    mask is never computed. If an operation is not known to work entry by entry, its result is
    sliced.
    """

    def __init__(self, edit: Editor, kept: fx.Node, part: str) -> None:
        self.edit = edit
        self.kept = kept
        self.part = part
        self.made: list[fx.Node] = []
        self._known: dict[tuple[fx.Node, int], fx.Node] = {}
        self._from: fx.Node | None = None

    def of(self, node: fx.Node, dim: int, reader: fx.Node) -> fx.Node:
        """Return the last entries of a value.

        Args:
            node: the value.
            dim: the dimension, not negative.
            reader: the operations are inserted before it.
        """
        if (node, dim) not in self._known:
            self._known[node, dim] = self._computed(node, dim, reader)
        return self._known[node, dim]

    def _computed(self, node: fx.Node, dim: int, reader: fx.Node) -> fx.Node:
        name = schema_name(node)
        if name in _ENTRYWISE:
            return self._copy(node, dim, reader, self._aligned(node, dim))
        if name in _FILLED:
            return self._copy(node, dim, reader, {}, dim)
        if name == "aten::expand":
            return self._copy(node, dim, reader, self._aligned(node, dim), dim)
        if (inner := _inner(node, dim)) is not None:
            return self._copy(node, dim, reader, {0: inner})
        if name == "aten::cat" and dim != _joined(node):
            return self._copy(node, dim, reader, dict.fromkeys(range(len(node.args[0])), dim))  # type: ignore[arg-type]
        if name == "aten::slice" and _to_the_end(node, dim):
            return self.of(node.args[0], dim, reader)  # type: ignore[arg-type]
        if name == "aten::embedding" and dim < fake_tensor(node.args[1]).ndim:
            return self._copy(node, dim, reader, {1: dim})
        return self._cut(node, dim, reader)

    def _cut(self, node: fx.Node, dim: int, reader: fx.Node) -> fx.Node:
        if self._from is None:
            with self.edit.code.inserting_after(self.kept):
                self._from = self.edit.code.call_function(operator.neg, (self.kept,))
            value = -fake_tensor(self.kept)
            self._from.meta = {"val": value, **self.edit.provenance(self.part)}
            self.made.append(self._from)
        call = (node, dim, self._from, SLICE_END)
        with self.edit.code.inserting_before(reader):
            cut = self.edit.code.call_function(torch.ops.aten.slice.Tensor, call)
        return self._typed(cut, node, dim)

    def _typed(self, new: fx.Node, old: fx.Node, dim: int) -> fx.Node:
        """Set the fake value of a node that is shorter than an old one."""
        value = fake_tensor(old)
        shape = list(value.shape)
        shape[dim] = fake_value(self.kept)
        own = {"val": value.new_empty(shape), **self.edit.provenance(self.part)}
        self.made.append(new)
        new.meta = {**old.meta, **own} if new.target is old.target else own
        return new

    def _aligned(self, node: fx.Node, dim: int) -> dict[int, int]:
        """Return the operands with a dimension, by the position of their leaf."""
        shape = fake_tensor(node).shape
        found = {}
        for slot, leaf in enumerate(leaves_of(node)):
            value = leaf.meta.get("val") if isinstance(leaf, fx.Node) else None
            if isinstance(value, torch.Tensor):
                own = dim - len(shape) + value.ndim
                if own >= 0 and same_size(value.shape[own], shape[dim]):
                    found[slot] = own
        return found

    def _copy(
        self,
        node: fx.Node,
        dim: int,
        reader: fx.Node,
        operands: dict[int, int],
        sizes: int | None = None,
    ) -> fx.Node:
        """Copy an operation, on the last entries of its operands.

        Args:
            node: the operation.
            dim: dimension of its result.
            reader: the copy is inserted before it.
            operands: the dimension in each operand that has it, by the position of its leaf.
            sizes: the place of the length in a list of sizes that the operation takes.
        """
        leaves = leaves_of(node)
        news: dict[int, Any] = {
            slot: self.of(leaves[slot], own, reader) for slot, own in operands.items()
        }
        with self.edit.code.inserting_before(reader):
            copy = self.edit.code.node_copy(node, lambda inner: inner)
        for slot, new in news.items():
            set_leaf(copy, slot, new)
        if sizes is not None:
            at = next(n for n, arg in enumerate(copy.args) if isinstance(arg, list | tuple))
            wanted = list(copy.args[at])  # type: ignore[arg-type]
            wanted[sizes] = self.kept
            copy.update_arg(at, wanted)
        return self._typed(copy, node, dim)


def _inner(node: fx.Node, dim: int) -> int | None:
    """Return the dimension of the first operand that an operation moves to ``dim``."""
    name, ndim = schema_name(node), fake_tensor(node).ndim
    args: Any = node.args
    if name == "aten::unsqueeze":
        at = args[1] % ndim
        return None if at == dim else int(dim - (dim > at))
    if name == "aten::permute":
        return int(args[1][dim] % ndim)
    if name == "aten::transpose":
        first, second = args[1] % ndim, args[2] % ndim
        return int({first: second, second: first}.get(dim, dim))
    return None


def _joined(cat: fx.Node) -> int:
    """Return the dimension along which values are concatenated."""
    args: Any = cat.args
    return int(args[1] if len(args) > 1 else 0) % int(fake_tensor(cat).ndim)


def _to_the_end(node: fx.Node, dim: int) -> bool:
    """Whether a slice takes every entry up to the end of a dimension."""
    defaults = (None, 0, None, None, 1)
    args: tuple[Any, ...] = (*node.args, *defaults[len(node.args) :])
    source, at, _, end, step = args
    whole = end is None or (isinstance(end, int) and end >= SLICE_END)
    return bool(whole and step == 1 and at % fake_tensor(source).ndim == dim)
