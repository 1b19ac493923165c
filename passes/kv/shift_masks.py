"""Shifting masks and positions as for a sequence with a prefix, which activations lack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import fx

from graphprog.analysis.attention import ATTENTION, Attention, activations
from graphprog.analysis.token_inputs import TokenLookup
from graphprog.ir.fake import fake_tensor
from graphprog.ir.sizes import SLICE_END, Stretch, resolve, same_size
from graphprog.passes.extend_axis.context import InsertionPoint
from graphprog.passes.extend_axis.propagate import Propagation
from graphprog.passes.extend_axis.side_inputs import SideInputs
from graphprog.passes.kv.explicit_mask import causal_mask, set_mask
from graphprog.passes.kv.last_entries import LastEntries, length_of
from graphprog.rewriting.edges import Call, leaves_of
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.fake_tracing import fake_mode_of, running
from graphprog.rewriting.refusal import RefusalError


class ShiftedMasks:
    """Computes the masks and positions of a longer sequence.

    Nodes other than activations are computed a second time, as if the prefix were part of the
    sequence. Attention reads all columns of such a mask and the rows of its own queries; if
    positions shift, other operations read the last entries.
    """

    def __init__(
        self, edit: Editor, key: fx.Node, axis: Stretch, side_inputs: SideInputs, part: str
    ) -> None:
        self.edit = edit
        self.axis = axis
        self.part = part
        self.before: dict[fx.Node, Call] = {}
        positions = [
            name for name, meaning in side_inputs.meanings.items() if meaning == "positions"
        ]
        self.data = activations(edit.code, positions)
        point = InsertionPoint(key, key, frozenset(), axis, 0)
        self.propagation = Propagation(edit, point, side_inputs, part)
        self.propagation.reach.activations = self.data
        self._masks: dict[Any, fx.Node] = {}
        self._tails: dict[fx.Node, fx.Node] = {}
        length = length_of(edit, axis.size, part) if axis.symbolic else None
        self._rows = None if length is None else LastEntries(edit, length, part)

    def run(self, group: Sequence[fx.Node], moves: bool) -> None:
        """Adapt attention operations and positions.

        Args:
            group: attention operations over the axis.
            moves: whether the positions of the tokens shift.

        Raises:
            RefusalError: an operation cannot be adapted.
        """
        size, longer = self.axis.size, self.propagation
        attending = {node: Attention(node) for node in group}
        if moves:
            self._refuse_unknown_positions(attending.values())
        plans: list[tuple[fx.Node, int, fx.Node]] = []
        masks: list[tuple[fx.Node, fx.Node]] = []
        with running(fake_mode_of(fake_tensor(group[0]))):
            for node in list(self.edit.code.nodes):
                longer.reader = node
                if node in attending:
                    masks += self._mask(attending[node])
                elif moves and node in self.data:
                    plans += self._moved(node)
        if isinstance(longer.size, torch.SymInt) and isinstance(size, torch.SymInt):
            resolve(longer.size, size, self.axis.added)
        for node, slot, new in plans:
            self._remember(node)
            old = leaves_of(node)[slot]
            self.edit.redirect(old, {(node, slot)}, new, set())
        for node, mask in masks:
            self._remember(node)
            self._attend(node, mask)
        self._erase_unread()

    def _erase_unread(self) -> None:
        """Remove the unused rows of masks of which only the last rows are read."""
        own = {*self.propagation.before} - {self.propagation.point.new}
        if self._rows is not None:
            own |= {self._rows.kept, *self._rows.made}
        for node in reversed(self.edit.code.nodes):
            if node in own and not node.users:
                self.edit.code.erase_node(node)

    def _refuse_unknown_positions(self, group: Iterable[Attention]) -> None:
        """Refuse tokens that are not known as activations, because their positions are unknown."""
        for attention in group:
            for part in (attention.query, attention.key, attention.value):
                if part not in self.data:
                    raise RefusalError(
                        part,
                        "its positions cannot be determined, since it comes neither from a float "
                        "input nor from rows that ids look up (positions='keep' moves none)",
                        attention.node,
                    )

    def _remember(self, node: fx.Node) -> None:
        self.before.setdefault(node, Call.of(node))

    def _moved(self, node: fx.Node) -> list[tuple[fx.Node, int, fx.Node]]:
        """Return the shifted operand of an operation on activations."""
        found: list[tuple[fx.Node, int, fx.Node]] = []
        if TokenLookup.of(node) is not None:
            return found  # ids are data
        for slot, leaf in enumerate(leaves_of(node)):
            side = isinstance(leaf, fx.Node) and leaf not in self.data and leaf.op != "get_attr"
            if not side or not isinstance(leaf.meta.get("val"), torch.Tensor):
                continue
            if node.target is ATTENTION and slot == 3:
                continue  # for attention without a prefix
            value = fake_tensor(leaf)
            if self.axis.symbolic and self.axis.carried_by(value):
                found.append((node, slot, self._tail(leaf)))
            elif not self.axis.symbolic and any(
                same_size(size, self.axis.size) for size in value.shape
            ):
                raise RefusalError(
                    leaf,
                    "whether its length is that of the keys cannot be determined from a number "
                    "(capture with dynamic_axes, or positions='keep')",
                    node,
                )
        return found

    def _tail(self, side: fx.Node) -> fx.Node:
        """Return the last entries of an extended value, with its original length."""
        if side not in self._tails:
            grown = self.propagation.extended(side)
            for dim in range(fake_tensor(side).ndim):
                if self._grows(side, dim):
                    grown = self._last(grown, side, dim)
            grown.meta["val"] = fake_tensor(side)
            self._tails[side] = grown
        return self._tails[side]

    def _grows(self, side: fx.Node, dim: int) -> bool:
        """Whether a dimension has one entry per token, so that the last entries are the tokens'."""
        more = self.axis.growth(fake_tensor(side).shape[dim])
        if more not in (0, self.axis.added):
            raise RefusalError(
                side,
                f"its dimension {dim} does not have one entry per token, so which entries belong "
                "to the prefix is not known",
                self.propagation.reader,
            )
        return bool(more != 0)

    def _last(self, value: fx.Node, like: fx.Node, dim: int) -> fx.Node:
        call = (value, dim, self.axis.added, SLICE_END)
        node = self.edit.call(torch.ops.aten.slice.Tensor, call, self.propagation.reader, self.part)
        self.propagation.before[node] = fake_tensor(like)
        return node

    def _mask(self, attention: Attention) -> list[tuple[fx.Node, fx.Node]]:
        """Return the mask of an operation with columns for the prefix; None without a mask."""
        mask = attention.mask
        if mask is None:
            return [(attention.node, self._causal(attention))] if attention.causal else []
        if mask not in self._masks:
            self._masks[mask] = self._longer(attention, mask)
        return [(attention.node, self._masks[mask])]

    def _longer(self, attention: Attention, mask: fx.Node) -> fx.Node:
        value = fake_tensor(mask)
        if same_size(value.shape[-1], 1):
            return mask  # one column for all keys
        rows = value.ndim > 1 and same_size(value.shape[-2], self.axis.size)
        if self.axis.symbolic:
            rows = value.ndim > 1 and self._grows(mask, value.ndim - 2)
            if mask in self.data:
                raise RefusalError(mask, "the mask is computed from data", attention.node)
            grown = self.propagation.extended(mask)
        else:
            wanted = {value.ndim - 1: self.propagation.size}
            rows &= same_size(fake_tensor(attention.query).shape[-2], self.axis.size)
            if rows:
                wanted[value.ndim - 2] = self.propagation.size
            grown = self.propagation.demand(mask, wanted, additive=value.dtype != torch.bool)
        if not same_size(fake_tensor(grown).shape[-1], self.propagation.size):
            raise RefusalError(mask, "it does not grow with the keys", attention.node)
        if not rows:
            return grown
        if self._rows is None:
            return self._last(grown, mask, value.ndim - 2)
        return self._rows.of(grown, value.ndim - 2, self.propagation.reader)

    def _causal(self, attention: Attention) -> fx.Node:
        """Return the mask of a causal operation: the prefix is never masked."""
        ops, reader, part = torch.ops.aten, attention.node, self.part
        read = (attention.query, attention.key)
        lengths = str([fake_tensor(node).shape[2] for node in read])
        if lengths not in self._masks:
            sizes = [self.edit.call(ops.sym_size.int, (node, 2), reader, part) for node in read]
            padded = (causal_mask(self.edit, attention, sizes, part), [self.axis.added, 0], True)
            self._masks[lengths] = self.edit.call(ops.constant_pad_nd.default, padded, reader, part)
        return self._masks[lengths]

    def _attend(self, node: fx.Node, mask: fx.Node) -> None:
        """Replace the mask of an operation."""
        attention = Attention(node)
        old = attention.mask
        if old is not None and old is not mask and len(node.args) > 3:
            self.edit.redirect(old, {(node, 3)}, mask, set())
        set_mask(attention, mask)
