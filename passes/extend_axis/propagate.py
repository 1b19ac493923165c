"""Propagation of a longer axis: everything after an insertion point is re-derived."""

from __future__ import annotations

import operator
from collections import defaultdict
from typing import Any

import sympy
import torch
from torch import fx

from graphprog.analysis.pointers import POINTS, name_of
from graphprog.analysis.reachability import Reachability, tower_inputs
from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import schema_name, sources_of
from graphprog.ir.sizes import differ, has_length, is_symbolic, resolve
from graphprog.passes.extend_axis.ambiguity import refuse_ambiguous
from graphprog.passes.extend_axis.context import Change, Context, End, InsertionPoint
from graphprog.passes.extend_axis.pointer_rules import new_pointers, refuse_other_axes, shifted
from graphprog.passes.extend_axis.rules import derive
from graphprog.passes.extend_axis.side_inputs import SideInputs, is_side_input, key_of
from graphprog.rewriting.edges import Slot, leaves_of, set_leaf
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.fake_tracing import fake_mode_of, running
from graphprog.rewriting.refusal import RefusalError

_SLICE = torch.ops.aten.slice.Tensor


class Propagation(Context):
    """Propagation of a longer axis from an insertion point to the outputs.

    Nodes after the point are kept: their operands are replaced, and their values are recomputed by
    running the operations. Other nodes with the axis (masks, positions, sizes, padded inputs) are
    computed a second time at the new length, so that nodes before the point do not change.
    """

    def __init__(
        self,
        edit: Editor,
        point: InsertionPoint,
        side_inputs: SideInputs,
        part: str,
        end: End | None = None,
    ) -> None:
        beyond = end.edges if end else frozenset()
        reach = Reachability(edit.code, point.old, point.edges, side_inputs.meanings, beyond)
        super().__init__(edit, point, reach, part)
        self.side_inputs = side_inputs
        self._unsettled: dict[fx.Node, fx.Node] = {}
        self._extended: dict[fx.Node, fx.Node] = {}
        self._demanded: dict[tuple[fx.Node, tuple[tuple[int, str], ...], bool], fx.Node] = {}

    def run(self) -> None:
        """Re-derive everything after the point.

        Raises:
            RefusalError: names the node where it is not possible, and why.
        """
        with running(fake_mode_of(fake_tensor(self.point.old))):
            self.as_variable(self.point.new)
            for node in self.reach.after:
                self._derive(node)
        size = self.axis.size
        if isinstance(self.size, torch.SymInt) and isinstance(size, torch.SymInt):
            resolve(self.size, size, self.axis.added)
        for node, reader in self._unsettled.items():
            if key_of(node) not in self.side_inputs.axis_dims:
                raise RefusalError(
                    node,
                    "whether its length is this axis cannot be determined from a number (capture "
                    "it with dynamic_axes)",
                    reader,
                )
        refuse_other_axes(self, self.side_inputs.pointers)
        self._move_interfaces()
        for node in reversed(self.edit.code.nodes):  # leftovers of trials
            if node in self.before and node not in self.reach and not node.users:
                self.edit.code.erase_node(node)

    def _move_interfaces(self) -> None:
        """Move interfaces along with replaced leaves."""
        moves: defaultdict[tuple[fx.Node, fx.Node], set[Slot]] = defaultdict(set)
        for (node, slot), old in self.originals.items():
            if isinstance(old, fx.Node):
                moves[old, leaves_of(node)[slot]].add((node, slot))
        for (old, new), slots in moves.items():
            self.edit.redirect(old, slots, new, set())

    def lengthen(self, node: fx.Node, dim: int) -> None:
        """Compute a value before the point again, with a longer dimension.

        The result is not used: it only shows which inputs the value needs.
        """
        meanings = self.side_inputs.meanings
        self.reach = Reachability(self.edit.code, node, (), meanings, recomputable=True)
        self.reader = self.edit.code.output_node()
        with running(fake_mode_of(fake_tensor(node))):
            self.demand(node, {dim: self.size}, additive=False)

    def changes(self) -> tuple[Change, ...]:
        """Return every replaced leaf after the point."""
        return tuple(
            (node.name, slot, old.name if isinstance(old, fx.Node) else old)
            for (node, slot), old in self.originals.items()
        )

    def values_before(self) -> dict[str, Any]:
        """Return the original values of changed nodes, by name."""
        return {node.name: value for node, value in self.before.items() if node in self.reach}

    def _derive(self, node: fx.Node) -> None:
        """Make one node after the point read longer operands, and run it again."""
        if node.op == "output":
            return  # results that do not depend on the point stay
        self.reader, sources = node, sources_of(node)
        for slot, leaf in enumerate(leaves_of(node)):
            if leaf in sources and leaf not in self.reach and leaf is not self.point.new:
                self.put(node, slot, self.extended(leaf))
        if not self._concerned(node):
            refuse_ambiguous(self, node, concerned=False)
            return
        old = fake_tensor(node)
        value = self._derived(node, None)
        self.before[node] = old
        node.meta["val"] = value

    def _derived(self, node: fx.Node, wanted: dict[int, Any] | None) -> Any:
        """Adapt and run a node, and note inputs that point into the axis there."""
        value = derive(self, node, wanted)
        self.side_inputs.pointers |= new_pointers(self, node)
        return value

    def _concerned(self, node: fx.Node) -> bool:
        """Whether any operand of a node has changed."""
        if any((node, slot) in self.originals for slot in range(len(leaves_of(node)))):
            return True
        return any(
            part in self.before and differ(self.before[part], fake_tensor(part))
            for part in node.all_input_nodes
        )

    def extended(self, node: fx.Node) -> fx.Node:
        """Return a node outside the reach at the new length; itself if it does not change.

        Raises:
            RefusalError: it holds the axis and comes from the activations before the point.
        """
        if node not in self._extended:
            self._extended[node] = self._again(node)
        return self._extended[node]

    def _again(self, node: fx.Node) -> fx.Node:
        value = node.meta.get("val")
        if node.op == "get_attr" or node in self.reach or node in self.before:
            return node  # of the model, or derived already
        if not isinstance(value, torch.Tensor):
            return self._size(node, value)
        if node in self.reach.activations:
            if self.axis.carried_by(value):
                raise RefusalError(node, "it is read around this interface", self.reader)
            return node
        if POINTS in node.meta and name_of(node) in self.side_inputs.pointers:
            return shifted(self, node)
        if is_side_input(node, self.axis.size):
            self._note_unsettled(node)
            return self.side_inputs.extended(self, node, {})
        tower = frozenset() if self.axis.symbolic else tower_inputs(node)
        if tower and not tower & set(self.side_inputs.axis_dims):
            return node  # of another tower, whose length happens to be the same number
        return self._clone(node, {})

    def _note_unsettled(self, node: fx.Node) -> None:
        """Note an input of which only its length, a number, hints that it has the axis."""
        size, name = self.axis.size, key_of(node)
        number = isinstance(size, int) and has_length(fake_tensor(node), size)
        if number and name not in self.side_inputs.axis_dims:
            self._unsettled[node] = self.reader

    def _size(self, node: fx.Node, value: Any) -> fx.Node:
        """Return a size, or several values, at the new length."""
        if isinstance(value, list | tuple):
            return self._clone(node, {})
        more = self.axis.growth(value) if is_symbolic(value) else sympy.Integer(0)
        if is_symbolic(value) and more.is_Integer:
            if more == 0:
                return node
            longer = self.copy_call(operator.add, (node, int(more)), node)
            assert isinstance(self.size, torch.SymInt)
            longer.meta["val"] = self.axis.stated(value, self.size)
            return longer
        if schema_name(node).startswith("aten::sym_size"):
            source = self.extended(node.args[0])  # type: ignore[arg-type]
            return self.copy_call(node.target, (source, *node.args[1:]), node)
        return self._clone(node, {})

    def _clone(self, node: fx.Node, wanted: dict[int, Any]) -> fx.Node:
        """Copy a node so that it reads longer operands; return itself if there are none.

        Args:
            node: the original, which stays for its other readers.
            wanted: dimensions of the result that must have another length.
        """
        leaves, sources = leaves_of(node), sources_of(node)
        news = [self.extended(leaf) if leaf in sources else leaf for leaf in leaves]
        if not wanted and all(new is leaf for new, leaf in zip(news, leaves, strict=True)):
            return node
        with self.edit.code.inserting_before(self.reader):
            copy = self.edit.code.node_copy(node, lambda inner: inner)
        copy.meta = {**node.meta, **self.edit.provenance(self.part)}
        for slot, new in enumerate(news):
            if new is not leaves[slot]:
                set_leaf(copy, slot, new)
        self.before[copy] = fake_tensor(node)
        copy.meta["val"] = self._derived(copy, wanted or None)
        self.reader.prepend(copy)  # after its new operands
        return copy

    def demand(self, node: fx.Node, wanted: dict[int, Any], additive: bool) -> fx.Node:
        """Return a node with other lengths of some dimensions; see :meth:`Context.demand`."""
        key = (node, tuple(sorted((dim, str(size)) for dim, size in wanted.items())), additive)
        if key not in self._demanded:
            self._demanded[key] = self._with_lengths(node, wanted, additive)
        return self._demanded[key]

    def _with_lengths(self, node: fx.Node, wanted: dict[int, Any], additive: bool) -> fx.Node:
        if node in self.reach.activations or node in self.reach:
            raise RefusalError(node, "it has the axis, but does not grow with it", self.reader)
        if node.op == "get_attr":
            return self.side_inputs.table(self, node, wanted, additive)
        if is_side_input(node, self.axis.size):
            return self.side_inputs.extended(self, node, wanted)
        return self._clone(node, wanted)

    def take_out(self, end: End, dim: int) -> None:
        """Make the uses of an end read its value without the entries.

        Raises:
            RefusalError: a node after the end also reads a longer value from before it.
        """
        reader, value = end.node.next, end.node
        added, offset = self.axis.added, self.point.offset
        bounds: list[tuple[int | None, int | None]] = [(0, offset), (offset + added, None)]
        if offset in (0, -1):
            bounds = [(added, None)] if offset == 0 else [(None, -added)]
        pieces = [
            self.edit.call(_SLICE, (value, dim, first, last), reader, self.part)
            for first, last in bounds
        ]
        joined = (torch.ops.aten.cat.default, (pieces, dim))
        result = pieces[0] if len(pieces) == 1 else self.edit.call(*joined, reader, self.part)
        result.meta["val"] = self.old_value(value)
        for user, slot in end.edges:
            set_leaf(user, slot, result)
            self.originals[user, slot] = value
        self.edit.redirect(value, set(end.edges), result, {(node, 0) for node in pieces})
        for node in self.reach.after_end:
            known = [part for part in node.all_input_nodes if part in self.before]
            longer = [part for part in known if differ(self.before[part], fake_tensor(part))]
            if longer and node.op != "output":
                raise RefusalError(longer[0], "the entries also get around where they end", node)
