"""R2: insert entries along an axis of a value, and re-derive all later operations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from graphprog.analysis.value_axes import is_batch
from graphprog.errors import GraphprogError, PassError
from graphprog.ir.fake import fake_tensor, fake_value
from graphprog.ir.graph import Graph, Insertion
from graphprog.ir.interface import Interface
from graphprog.ir.ops import ancestors
from graphprog.ir.sizes import SLICE_END, Stretch, has_length, same_size
from graphprog.manipulations.prompts.concatenative import Concatenative
from graphprog.passes.base import Pass
from graphprog.passes.extend_axis.context import Change, End, InsertionPoint
from graphprog.passes.extend_axis.propagate import Propagation
from graphprog.passes.extend_axis.side_inputs import SideInputs, is_side_input
from graphprog.passes.insert.insert import RestoreUses, ordered, unique_label
from graphprog.passes.insert.operands import read
from graphprog.rewriting.edges import set_leaf, uses_of
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.inliner import inline
from graphprog.rewriting.refusal import RefusalError
from graphprog.spec.registry import spec
from graphprog.values.allocation import build
from graphprog.values.context import BuildContext

_TRIES = 24
_ROUNDS = 8


class BatchError(RefusalError):
    """The axis is the batch."""


@spec("extend-axis")
@dataclasses.dataclass(frozen=True)
class ExtendAxis(Pass):
    """Insert entries into the value at an interface, and adapt all later operations.

    Readers outside the interface keep the old value. Sizes, masks, positions and side inputs of the
    axis are recomputed at the new length for later operations.

    Attributes:
        op: the entries, and where to insert them.
        seed: seed of random initial values.

    Example:
        >>> longer = gp.passes.ExtendAxis(gp.Concatenative(at="tokens", length=4))(language)
        >>> assert longer(ids).shape == (2, 10, 256)
    """

    op: Concatenative
    seed: int = 0

    after = ("replace-input",)

    def run(self, graph: Graph) -> Graph:
        """Insert, or refuse.

        Raises:
            PassError: a later operation cannot take a longer axis; names operation, module and
                source line, and the nearest interface where the same entries can be inserted.
        """
        place = graph.interfaces().resolve(self.op.at)
        try:
            return self._extend(graph, place)
        except RefusalError as refusal:
            axes = self._other_axes(graph, place) if isinstance(refusal, BatchError) else []
            raise PassError(
                f"{self.op.at}: no entries can be inserted on axis {self.op.axis} here: {refusal}"
                f"{self._limit(graph, place)}",
                axes or self._remedies(graph, place),
            ) from refusal

    def _extend(self, graph: Graph, place: Interface) -> Graph:
        axis_dims, pointers = self._axis_dims(graph, place), frozenset[str]()
        for _ in range(_ROUNDS):
            roles = dict(self.op.input_roles)
            side_inputs = SideInputs(roles, self.op.tables, axis_dims, pointers)
            extended = self._once(graph, place, side_inputs)
            if (side_inputs.axis_dims, side_inputs.pointers) == (axis_dims, pointers):
                return extended
            # an input turned out to be longer, or to point into the axis: start over with it
            axis_dims, pointers = side_inputs.axis_dims, side_inputs.pointers
        raise AssertionError("the inputs that carry the axis do not settle")

    def _axis_dims(self, graph: Graph, place: Interface) -> Mapping[str, frozenset[int]]:
        """Return the integer inputs with the fixed length of the axis.

        They are found by requesting a longer value at the interface: the length comes from the
        inputs that can deliver it.
        """
        size = fake_value(graph.nodes[place.node]).shape[self.op.axis]
        if not isinstance(size, int):
            return {}
        earlier = _lengthened(graph, place, size)
        integers = [
            node
            for node in graph.placeholders
            if not fake_tensor(node).is_floating_point() and has_length(fake_tensor(node), size)
        ]
        if not integers:
            return earlier
        edit = Editor(graph, str(self))
        value = edit.node(place.node)
        side_inputs = SideInputs(dict(self.op.input_roles), self.op.tables, {})
        axis = Stretch(size, max(self.op.length, 1))
        edges = frozenset(edit.edges(place.edges))
        point = InsertionPoint(value, value, edges, axis, self.op.offset)
        try:
            Propagation(edit, point, side_inputs, "").lengthen(value, self.op.axis)
        except RefusalError:
            return earlier
        names = {str(node.target) for node in integers}
        return earlier | {
            name: dims for name, dims in side_inputs.axis_dims.items() if name in names
        }

    def _once(self, graph: Graph, place: Interface, side_inputs: SideInputs) -> Graph:
        op = self.op
        edit = Editor(graph, str(self))
        old = edit.node(place.node)
        value = fake_tensor(old)
        size = value.shape[op.axis] if 0 <= op.axis < value.ndim else None
        if size is not None and op.length and is_batch(graph, value, op.axis):
            raise BatchError(old, "this axis is the batch, whose entries are examples")
        if isinstance(size, int) and size == 1 and op.length:
            raise RefusalError(
                old, "the axis has one entry, which may stand for all where others are read beside"
            )
        label = unique_label(graph, op.label)
        generator = torch.Generator().manual_seed(self.seed)
        edges, known = frozenset(edit.edges(place.edges)), set(uses_of(old))
        inputs = [old, *(read(edit, graph, name, place.key) for name in op.reads)]
        read_values = tuple(fake_tensor(node) for node in inputs[1:])
        context = BuildContext(
            value, place.key, generator, read_values, graph=graph, nodes=(place.node,)
        )
        module = build(op, context)
        (entries,) = inline(edit, label, module, inputs, place.key)
        edit.share(label, entries)
        if op.length == 0:  # even an empty piece would give the value other strides
            return edit.finish()
        new = _joined(edit, old, entries, op, label)
        reading = set(uses_of(old)) - known
        axis = Stretch(value.shape[op.axis], op.length)
        edit.redirect(old, set(edges), new, reading, place.key)
        order = ordered(edit, place.key, op.reads)
        point = InsertionPoint(old, new, edges, axis, op.offset)
        propagation = self._propagate(edit, graph, point, side_inputs, label)
        before = propagation.values_before()
        undo = RestoreAxis(propagation.changes(), before, RestoreUses(new.name, old.name, order))
        edit.record(Insertion("axis", label, place.key, new.name, old.name, undo, op.label, before))
        return edit.finish()

    def _propagate(
        self,
        edit: Editor,
        graph: Graph,
        point: InsertionPoint,
        side_inputs: SideInputs,
        label: str,
    ) -> Propagation:
        """Re-derive the operations after the point, up to the ends."""
        op = self.op
        end = End.at(edit, graph.interfaces().resolve(op.until)) if op.until else None
        propagation = Propagation(edit, point, side_inputs, label, end)
        propagation.run()
        if end is not None:
            value, before = fake_tensor(end.node), propagation.old_value(end.node)
            stands = value.ndim > op.axis and same_size(value.shape[op.axis], propagation.size)
            if not stands or not same_size(before.shape[op.axis], point.axis.size):
                raise RefusalError(
                    end.node, f"the entries do not stand on axis {op.axis} at {op.until!r}"
                )
            propagation.take_out(end, op.axis)
        return propagation

    def _limit(self, graph: Graph, place: Interface) -> str:
        """Return the remark that the axis is longer than capture allows, if it is."""
        shape = fake_value(graph.nodes[place.node]).shape
        size = shape[self.op.axis] if 0 <= self.op.axis < len(shape) else None
        if not isinstance(size, torch.SymInt) or not size.node.has_hint():
            return ""
        most, longer = size.node.shape_env.bound_sympy(size.node.expr).upper, size.node.hint
        if longer + self.op.length <= most:
            return ""
        return (
            f"\n  the captured length, {longer}, and {self.op.length} entries are "
            f"{longer + self.op.length}, but the model takes {most} at most"
        )

    def _other_axes(self, graph: Graph, place: Interface) -> list[str]:
        """Return the axis of this interface where it works, found by trial; the last is not tried.

        Varying axes are tried first.
        """
        sizes = fake_value(graph.nodes[place.node]).shape[:-1]
        axes = [axis for axis in range(len(sizes)) if axis != self.op.axis]
        for axis in sorted(axes, key=lambda axis: isinstance(sizes[axis], int)):
            moved = dataclasses.replace(self, op=dataclasses.replace(self.op, axis=axis))
            try:
                moved._extend(graph, place)
            except (RefusalError, GraphprogError):
                continue
            return [f"axis={axis}: there it works"]
        return []

    def _remedies(self, graph: Graph, place: Interface) -> list[str]:
        """Return the nearest interface where it works, found by trial."""
        order = {name: position for position, name in enumerate(graph.nodes)}
        here = order[place.node]
        others = [
            other
            for other in graph.interfaces().values()
            if other.key != place.key and _alike(graph, place, other, self.op.axis)
        ]
        others.sort(key=lambda other: (not other.aliases, abs(order[other.node] - here)))
        for other in others[:_TRIES]:
            try:
                self._extend(graph, other)
            except (RefusalError, GraphprogError):
                continue
            return [f"at={(other.aliases or (other.key,))[0]!r}: there it works"]
        return []


@dataclasses.dataclass(frozen=True)
class RestoreAxis:
    """Undo of an extension: restores the axis and the operands of later operations.

    Attributes:
        changes: the replaced leaves, in order.
        values: original fake values, by node.
        uses: uses of the value at the interface.
    """

    changes: tuple[Change, ...]
    values: Mapping[str, Any]
    uses: RestoreUses

    def __call__(self, edit: Editor) -> None:
        """Restore leaves and fake values, then the uses of the value."""
        for name, slot, old in reversed(self.changes):
            set_leaf(edit.node(name), slot, edit.node(old) if isinstance(old, str) else old)
        for name, value in self.values.items():
            edit.node(name).meta["val"] = value
        self.uses(edit)


def _joined(edit: Editor, old: fx.Node, entries: fx.Node, op: Concatenative, label: str) -> fx.Node:
    """Return the value with the entries inserted."""
    ops, value, before = torch.ops.aten, fake_value(old), entries.next

    def call(target: object, *args: object) -> fx.Node:
        return edit.call(target, args, before, label)  # type: ignore[arg-type]

    sizes = [
        size if isinstance(size, int) else call(ops.sym_size.int, old, dim)
        for dim, size in enumerate(value.shape)
    ]
    sizes[op.axis] = op.length
    inserted = call(ops.expand.default, entries, sizes)
    if op.offset == 0:
        parts = [inserted, old]
    elif op.offset == -1:
        parts = [old, inserted]
    else:
        head = call(ops.slice.Tensor, old, op.axis, 0, op.offset)
        tail = call(ops.slice.Tensor, old, op.axis, op.offset, SLICE_END)
        parts = [head, inserted, tail]
    return call(ops.cat.default, parts, op.axis)


def _lengthened(graph: Graph, place: Interface, size: int) -> dict[str, frozenset[int]]:
    """Return the inputs that earlier insertions into the same axis gave this length."""
    parts = {node.meta.get("graphprog") for node in ancestors(graph.nodes[place.node])}
    return {
        name: frozenset(
            dim
            for dim, one in enumerate(fake_value(node).shape)
            if isinstance(one, int) and one == size
        )
        for name, node in graph.nodes.items()
        if node.op != "placeholder"
        and is_side_input(node, size)
        and node.meta.get("graphprog") in parts
    }


def _alike(graph: Graph, place: Interface, other: Interface, axis: int) -> bool:
    """Whether the same entries would fit another interface."""
    mine, theirs = (fake_tensor(graph.nodes[one.node]) for one in (place, other))
    fixed = [
        (a, b)
        for dim, (a, b) in enumerate(zip(mine.shape, theirs.shape, strict=False))
        if dim not in (0, axis) and isinstance(a, int)
    ]
    same = mine.ndim == theirs.ndim and all(same_size(a, b) for a, b in fixed)
    return bool(same and mine.dtype == theirs.dtype and other.kind != "output")
