"""Re-derivation of a graph behind a value one of whose axes has become longer."""

from __future__ import annotations

import operator
from collections import defaultdict
from typing import Any

import sympy
import torch
from torch import fx

from graphprog.analysis.reachability import Reach, tower_inputs
from graphprog.ir.fake import fake_tensor, fake_value
from graphprog.ir.ops import schema_name
from graphprog.ir.sizes import differ, expression, has_length, is_symbolic, resolve, stand_in
from graphprog.passes.extend_axis.ambiguity import refuse_doubt
from graphprog.passes.extend_axis.cuts import Change, Cut, End
from graphprog.passes.extend_axis.reshape_factors import Factors
from graphprog.passes.extend_axis.rules import agree
from graphprog.passes.extend_axis.side_inputs import Sides, is_side, key_of
from graphprog.rewriting.edges import Slot, leaves_of, set_leaf
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.fake_execution import Kernels
from graphprog.rewriting.fake_tracing import fake_mode_of, running
from graphprog.rewriting.refusal import RefusalError


class Growth:
    """Make everything behind a cut agree with the longer axis.

    What lies behind the cut keeps its nodes: their sources are replaced and their values are
    computed anew by running the operations. What lies elsewhere and holds the axis (masks,
    positions, sizes, padded inputs) is computed a second time at the new length, so that what
    is in front of the cut stays as it is.
    """

    def __init__(
        self, edit: Editor, cut: Cut, sides: Sides, part: str, end: End | None = None
    ) -> None:
        self.edit = edit
        self.part = part
        self.cut = cut
        self.sides = sides
        beyond = end.edges if end else frozenset()
        self.reach = Reach(edit.code, cut.old, cut.edges, sides.meanings, beyond)
        self.kernels = Kernels()
        self.before: dict[fx.Node, Any] = {cut.new: fake_tensor(cut.old)}
        self.parts: dict[tuple[fx.Node, int], Factors] = {}
        self.unsettled: dict[fx.Node, fx.Node] = {}
        self._grown: dict[fx.Node, fx.Node] = {}
        self._demanded: dict[tuple[fx.Node, tuple[tuple[int, str], ...], bool], fx.Node] = {}
        self.originals: dict[Slot, Any] = {}
        self.reader = cut.new
        size, added = cut.stretch.size, cut.stretch.added
        self.size = stand_in(size, added) if isinstance(size, torch.SymInt) else size + added

    def run(self) -> None:
        """Re-derive.

        Raises:
            RefusalError: names the node where it is not possible, and why.
        """
        mode = fake_mode_of(fake_tensor(self.cut.old))
        size, added = self.cut.stretch.size, self.cut.stretch.added
        with running(mode):
            self._as_variable(self.cut.new)
            for node in self.reach.behind:
                self._derive(node)
        if isinstance(self.size, torch.SymInt) and isinstance(size, torch.SymInt):
            resolve(self.size, size, added)
        for node, reader in self.unsettled.items():
            if key_of(node) not in self.sides.carriers:
                raise RefusalError(
                    node,
                    "whether its length is this axis cannot be told from a number (capture it with "
                    "dynamic_axes)",
                    reader,
                )
        moves: defaultdict[tuple[fx.Node, fx.Node], set[Slot]] = defaultdict(set)
        for (node, slot), old in self.originals.items():
            if isinstance(old, fx.Node):
                moves[old, leaves_of(node)[slot]].add((node, slot))
        for (old, new), slots in moves.items():
            self.edit.redirect(old, slots, new, set())
        for node in reversed(self.edit.code.nodes):  # what was tried and then taken otherwise
            if node in self.before and node not in self.reach and not node.users:
                self.edit.code.erase_node(node)

    def lengthen(self, node: fx.Node, dim: int) -> None:
        """Compute a value in front of the cut once more, with a longer dimension.

        Nothing is done with it: the inputs that it takes are known afterwards.
        """
        self.reach = Reach(self.edit.code, node, (), self.sides.meanings, recomputable=True)
        self.reader = self.edit.code.output_node()
        with running(fake_mode_of(fake_tensor(node))):
            self.demand(node, {dim: self.size}, additive=False)

    def changes(self) -> tuple[Change, ...]:
        """Every leaf that was replaced behind the cut."""
        return tuple(
            (node.name, slot, old.name if isinstance(old, fx.Node) else old)
            for (node, slot), old in self.originals.items()
        )

    def values_before(self) -> dict[str, Any]:
        """What the values of changed nodes were, by name."""
        return {node.name: value for node, value in self.before.items() if node in self.reach}

    def old_value(self, node: fx.Node) -> Any:
        """What a node's value was when the axis was shorter."""
        return self.before.get(node, node.meta.get("val"))

    def _derive(self, node: fx.Node) -> None:
        """Let one node behind the cut read what has grown, and run it again."""
        if node.op == "output":
            return  # what is returned from in front of the cut, or beside it, stays as it is
        self.reader = node
        for slot, leaf in enumerate(leaves_of(node)):
            if isinstance(leaf, fx.Node) and leaf not in self.reach and leaf is not self.cut.new:
                self.put(node, slot, self.grown(leaf))
        if not self._concerned(node):
            refuse_doubt(self, node, concerned=False)
            return
        old = fake_tensor(node)
        value = agree(self, node, None)
        self.before[node] = old
        node.meta["val"] = value

    def _concerned(self, node: fx.Node) -> bool:
        """Whether anything that a node reads is another than before."""
        if any((node, slot) in self.originals for slot in range(len(leaves_of(node)))):
            return True
        return any(
            part in self.before and differ(self.before[part], fake_tensor(part))
            for part in node.all_input_nodes
        )

    def put(self, node: fx.Node, slot: int, value: Any) -> None:
        """Replace a leaf of a node, and remember what stood there at first."""
        old = leaves_of(node)[slot]
        if old is value:
            return
        set_leaf(node, slot, value)
        if node in self.reach:
            self.originals.setdefault((node, slot), old)

    def grown(self, node: fx.Node) -> fx.Node:
        """A node that is not behind the cut, at the new length; itself where nothing changes.

        Raises:
            RefusalError: it holds the axis and comes from the activations in front of the cut.
        """
        if node not in self._grown:
            self._grown[node] = self._again(node)
        return self._grown[node]

    def _again(self, node: fx.Node) -> fx.Node:
        value = node.meta.get("val")
        if node.op == "get_attr" or node in self.reach or node in self.before:
            return node  # of the model, or re-derived already
        if not isinstance(value, torch.Tensor):
            return self._size(node, value)
        if node in self.reach.activations:
            if self.cut.stretch.carried_by(value):
                raise RefusalError(node, "it is read around this interface", self.reader)
            return node
        if is_side(node, self.cut.stretch.size):
            self._settled(node)
            return self.sides.padded(self, node, {})
        tower = frozenset() if self.cut.stretch.symbolic else tower_inputs(node)
        if tower and not tower & set(self.sides.carriers):
            return node  # of another tower, whose length happens to be the same number
        return self.clone(node, {})

    def _settled(self, node: fx.Node) -> None:
        """Refuse an input of which only its length, a number, hints that it has the axis."""
        size, name = self.cut.stretch.size, key_of(node)
        number = isinstance(size, int) and has_length(fake_tensor(node), size)
        if number and name not in self.sides.carriers:
            self.unsettled[node] = self.reader

    def _size(self, node: fx.Node, value: Any) -> fx.Node:
        """A size, or several values at once, at the new length."""
        if isinstance(value, list | tuple):
            return self.clone(node, {})
        growth = self.cut.stretch.growth(value) if is_symbolic(value) else sympy.Integer(0)
        if is_symbolic(value) and growth.is_Integer:
            if growth == 0:
                return node
            grown = self.copy_call(operator.add, (node, int(growth)), node)
            assert isinstance(self.size, torch.SymInt)
            grown.meta["val"] = self.cut.stretch.stated(value, self.size)
            return grown
        if schema_name(node).startswith("aten::sym_size"):
            source = self.grown(node.args[0])  # type: ignore[arg-type]
            return self.copy_call(node.target, (source, *node.args[1:]), node)
        return self.clone(node, {})

    def clone(self, node: fx.Node, wanted: dict[int, Any]) -> fx.Node:
        """A second copy of a node that reads what has grown; itself where nothing has.

        Args:
            node: the original, which stays for its other readers.
            wanted: dimensions of the result that must have another length.
        """
        leaves = leaves_of(node)
        news = [self.grown(leaf) if isinstance(leaf, fx.Node) else leaf for leaf in leaves]
        if not wanted and all(new is leaf for new, leaf in zip(news, leaves, strict=True)):
            return node
        with self.edit.code.inserting_before(self.reader):
            copy = self.edit.code.node_copy(node, lambda inner: inner)
        copy.meta = {**node.meta, **self.edit.provenance(self.part)}
        for slot, new in enumerate(news):
            if new is not leaves[slot]:
                set_leaf(copy, slot, new)
        self.before[copy] = fake_tensor(node)
        copy.meta["val"] = agree(self, copy, wanted or None)
        self.reader.prepend(copy)  # behind what it came to read meanwhile
        return copy

    def copy_call(self, target: Any, args: Any, like: fx.Node) -> fx.Node:
        """A new operation in front of the node being derived, in place of ``like``."""
        node = self.edit.call(target, args, before=self.reader, part=self.part)
        self.before[node] = fake_tensor(like)
        self._as_variable(node)
        return node

    def _as_variable(self, node: fx.Node) -> None:
        """Let a value have the new length as a size of its own, not as a sum."""
        value, total = fake_value(node), expression(self.cut.stretch.size) + self.cut.stretch.added
        if not isinstance(value, torch.Tensor) or not self.cut.stretch.symbolic:
            return
        shape = [self.size if expression(one) == total else one for one in value.shape]
        node.meta["val"] = value.new_empty(shape)

    def demand(self, node: fx.Node, wanted: dict[int, Any], additive: bool) -> fx.Node:
        """A node with some dimensions at another length, since a reader cannot do without.

        Args:
            node: what is read.
            wanted: dimensions and their new lengths.
            additive: whether the reader adds it, so that zeros change nothing.

        Raises:
            RefusalError: it cannot have that length.
        """
        key = (node, tuple(sorted((dim, str(size)) for dim, size in wanted.items())), additive)
        if key not in self._demanded:
            self._demanded[key] = self._stretched(node, wanted, additive)
        return self._demanded[key]

    def _stretched(self, node: fx.Node, wanted: dict[int, Any], additive: bool) -> fx.Node:
        if node in self.reach.activations or node in self.reach:
            raise RefusalError(node, "it has the axis, but does not grow with it", self.reader)
        if node.op == "get_attr":
            return self.sides.table(self, node, wanted, additive)
        if is_side(node, self.cut.stretch.size):
            return self.sides.padded(self, node, wanted)
        return self.clone(node, wanted)
