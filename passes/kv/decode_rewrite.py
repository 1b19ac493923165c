"""Rewriting to a decode graph: it reads cached keys and values, and computes the last tokens."""

from __future__ import annotations

import operator

import torch
from torch import fx

from graphprog.analysis.attention import ATTENTION, Attention, activations
from graphprog.ir.fake import fake_tensor, fake_value
from graphprog.ir.ops import schema_name, values_of
from graphprog.ir.sizes import SLICE_END, Stretch, fresh_size, is_symbolic, same_size, stand_in
from graphprog.passes.kv.explicit_mask import causal_mask, set_mask
from graphprog.passes.kv.kv_layout import Heads, KVLayout
from graphprog.passes.kv.last_entries import LastEntries, length_of
from graphprog.rewriting.edges import leaves_of, set_leaf, uses_of
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.fake_execution import Kernels
from graphprog.rewriting.fake_tracing import fake_mode_of, running
from graphprog.rewriting.refusal import RefusalError

PART = "cache"


class DecodeRewrite:
    """Rewrites activations to be computed for the last tokens only.

    Masks, positions and sizes stay those of all tokens; operations on activations read their last
    entries. ``past`` are the keys and values of the other tokens.
    """

    def __init__(self, edit: Editor, slots: KVLayout) -> None:
        self.edit = edit
        self.slots = slots
        self.axis = Stretch(slots.axis, 1)
        self.kernels = Kernels()
        self.data = _data(edit.code)
        self.first = next(node for node in edit.code.nodes if node.op != "placeholder")
        self.skipped = fresh_size(slots.axis, 3)
        self.kept = stand_in(slots.axis, 0)
        self.own = {heads.attention.node for heads in slots.own}
        self.joined: set[fx.Node] = set()
        self._sizes: dict[tuple[fx.Node, bool], fx.Node] = {}

    def run(self) -> dict[str, fx.Node]:
        """Rewrite the code in place.

        Returns:
            Keys and values of all tokens, ``present_key_0`` and so on.

        Raises:
            RefusalError: names the node that cannot be rewritten.
        """
        slots = self.slots
        with running(fake_mode_of(fake_tensor(slots.own[0].node))):
            total = length_of(self.edit, slots.axis, PART)
            if total is None:
                why = "no input has as many entries as its tokens"
                raise RefusalError(slots.own[-1].node, why)
            self.total = total
            past = [
                self._input(name, heads, self.skipped)
                for name, heads in zip(slots.names("past"), slots.own, strict=True)
            ]
            self._replace_cross()
            self.last = self._last(past[0])
            self.last_entries = LastEntries(self.edit, self.last, PART)
            whole = [self._join(*pair) for pair in zip(past, slots.own, strict=True)]
            for node in list(self.edit.code.nodes):
                self._derive(node)
        return dict(zip(slots.names("present"), whole, strict=True))

    def _last(self, past: fx.Node) -> fx.Node:
        """The number of computed tokens: all but those with given keys."""
        skipped = self.edit.call(torch.ops.aten.sym_size.int, (past, 2), self.first, PART)
        last = self.edit.call(operator.sub, (self.total, skipped), self.first, PART)
        last.meta["val"] = self.kept
        return last

    def _input(self, name: str, heads: Heads, length: int | torch.SymInt) -> fx.Node:
        """Add an input for keys or values, each head once."""
        value = fake_tensor(heads.node)
        batch, count, _, width = value.shape
        shape = [batch, count // heads.repeats, length, width]
        return self.edit.add_input(name, value.new_empty(shape))

    def _replace_cross(self) -> None:
        """Read the keys and values of cross attention instead of computing them."""
        for name, heads in zip(self.slots.names("cross"), self.slots.cross, strict=True):
            given = self._input(name, heads, fake_tensor(heads.node).shape[2])
            self.joined.add(given)
            self.edit.redirect(heads.node, {heads.edge}, self._repeated(given, heads), set())

    def _join(self, past: fx.Node, heads: Heads) -> fx.Node:
        """Prepend cached keys or values to new ones; return all, each head once."""
        ops, reader = torch.ops.aten, heads.edge[0]
        known = set(uses_of(heads.node))
        batch, count, _, width = fake_tensor(past).shape
        fresh = heads.node
        if heads.repeats > 1:
            call = (fresh, 1, 0, SLICE_END, heads.repeats)
            fresh = self.edit.call(ops.slice.Tensor, call, reader, PART)
            fresh.meta["val"] = fake_tensor(past).new_empty([batch, count, self.kept, width])
            self.joined.add(fresh)
        with self.edit.code.inserting_before(reader):
            whole = self.edit.code.call_function(ops.cat.default, ([past, fresh], 2))
        value = fake_tensor(past).new_empty([batch, count, self.slots.axis, width])
        whole.meta = {"val": value, **self.edit.provenance(PART)}
        self.joined.add(whole)
        wide = self._repeated(whole, heads)
        self.edit.redirect(heads.node, {heads.edge}, wide, set(uses_of(heads.node)) - known)
        return whole

    def _repeated(self, node: fx.Node, heads: Heads) -> fx.Node:
        """Repeat every head as often as the operation reads it."""
        if heads.repeats == 1:
            return node
        ops, reader = torch.ops.aten, heads.edge[0]
        apart = self.edit.call(ops.unsqueeze.default, (node, 2), reader, PART)
        sizes = [-1, -1, heads.repeats, -1, -1]
        wide = self.edit.call(ops.expand.default, (apart, sizes), reader, PART)
        flat = self.edit.call(ops.flatten.using_ints, (wide, 1, 2), reader, PART)
        self.joined |= {apart, wide, flat}
        return flat

    def _derive(self, node: fx.Node) -> None:
        """Make an operation on activations read the last entries of other operands, and run it."""
        if node in self.joined or node.op != "call_function":
            return
        if node not in self.data:
            for slot, leaf in enumerate(leaves_of(node)):
                if self._is_tensor(node) and self._is_size(leaf):
                    self._put(node, slot, self._size(leaf, kept=False))
            return
        if node in self.own:
            self._attend(Attention(node))
        for slot, leaf in enumerate(leaves_of(node)):
            if isinstance(leaf, fx.Node):
                self._put(node, slot, self._counterpart(node, slot, leaf))
        node.meta["val"] = self.kernels.run(node)

    def _counterpart(self, node: fx.Node, slot: int, leaf: fx.Node) -> fx.Node:
        """Return the operand that replaces a value of all tokens."""
        own = leaf in self.data and leaf.op != "placeholder"
        if own or leaf in self.joined or leaf.op == "get_attr":
            return leaf
        if self._is_size(leaf):
            return self._size(leaf, kept=True)
        value = leaf.meta.get("val")
        if not isinstance(value, torch.Tensor):
            return leaf
        dims = [dim for dim, size in enumerate(value.shape) if self.axis.growth(size) != 0]
        if node.target is ATTENTION and slot == 3:
            dims = [dim for dim in dims if dim == value.ndim - 2]
        if len(dims) > 1 or any(not same_size(value.shape[d], self.slots.axis) for d in dims):
            raise RefusalError(
                leaf, "which of its entries are of the last tokens is not known", node
            )
        return self.last_entries.of(leaf, dims[0], node) if dims else leaf

    def _attend(self, one: Attention) -> None:
        """Make the mask that an operation applies itself an operand."""
        if one.mask is not None:
            if one.mask in self.data:
                raise RefusalError(one.mask, "the mask is computed from data", one.node)
            return
        if not one.causal:
            raise RefusalError(one.node, "tokens see later tokens here")
        set_mask(one, causal_mask(self.edit, one, (self.total, self.total), PART))

    def _is_tensor(self, node: fx.Node) -> bool:
        return isinstance(node.meta.get("val"), torch.Tensor)

    def _is_size(self, leaf: object) -> bool:
        """Whether a leaf is a size of the axis."""
        value = leaf.meta.get("val") if isinstance(leaf, fx.Node) else None
        return is_symbolic(value) and self.axis.carried_by(value)

    def _size(self, node: fx.Node, kept: bool) -> fx.Node:
        """Return a size for the last tokens, or for all."""
        if (node, kept) not in self._sizes:
            self._sizes[node, kept] = self._measured(node, kept)
        return self._sizes[node, kept]

    def _measured(self, node: fx.Node, kept: bool) -> fx.Node:
        if node in (self.total, self.last):
            return node
        if same_size(fake_value(node), self.slots.axis):
            return self.last if kept else self.total
        if schema_name(node).startswith("aten::sym_size"):
            if kept and node.args[0] in self.data:
                node.meta["val"] = self.kernels.run(node)
                return node
            raise RefusalError(node, "this length is not the number of tokens but computed from it")
        with self.edit.code.inserting_after(node):
            copy = self.edit.code.node_copy(node, lambda inner: inner)
        for slot, leaf in enumerate(leaves_of(copy)):
            if self._is_size(leaf):
                set_leaf(copy, slot, self._size(leaf, kept))
        if kept:
            copy.meta["val"] = self.kernels.run(copy)
        return copy

    def _put(self, node: fx.Node, slot: int, new: fx.Node) -> None:
        old = leaves_of(node)[slot]
        if new is not old:
            self.edit.redirect(old, {(node, slot)}, new, set())


def _data(code: fx.Graph) -> frozenset[fx.Node]:
    """Return activations, and nodes with the shape of an activation."""
    found = set(activations(code))
    for node in code.nodes:
        if node.op != "call_function" or not isinstance(node.meta.get("val"), torch.Tensor):
            continue
        like = schema_name(node).endswith("_like") and node.args[0] in found
        if like or any(part in found for part in values_of(node)):
            found.add(node)
    return frozenset(found)
