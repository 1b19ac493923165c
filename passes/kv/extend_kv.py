"""R3: prepend keys and values to those that attention reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import fx

from graphprog.analysis.attention import ATTENTION, Attention, is_cross
from graphprog.errors import InterfaceError, PassError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph, Insertion
from graphprog.ir.interface import Interface
from graphprog.ir.sizes import Stretch, expression
from graphprog.manipulations.prompts.prefix import Prefix
from graphprog.passes.base import Pass
from graphprog.passes.extend_axis.side_inputs import SideInputs
from graphprog.passes.insert.insert import RestoreUses, unique_label
from graphprog.passes.kv.shift_masks import ShiftedMasks
from graphprog.passes.kv.verify_prefix import prove
from graphprog.rewriting.edges import Call, uses_of
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.inliner import inline
from graphprog.rewriting.refusal import RefusalError
from graphprog.spec.registry import spec
from graphprog.values.allocation import build
from graphprog.values.context import BuildContext
from graphprog.values.text_prefix import TextPrefix


@spec("extend-kv")
@dataclasses.dataclass(frozen=True)
class ExtendKV(Pass):
    """Prepend keys and values in attention, and adapt masks and positions.

    Operands of attention other than queries, keys and values are computed a second time for a
    sequence with the entries of the prefix, and the rows of those entries are dropped. So masks of
    any kind, relative positions and windows are those that the model would compute.

    Attributes:
        op: the prefix; ``op.at`` names the attention operations.
        seed: seed of random initial values.

    Example:
        >>> longer = gp.passes.ExtendKV(gp.Prefix(length=4))(language)
        >>> assert longer(ids).shape == language(ids).shape
    """

    op: Prefix
    seed: int = 0

    after = ("replace-input", "extend-axis")

    def run(self, graph: Graph) -> Graph:
        """Extend, or refuse.

        Raises:
            InterfaceError: a place is not the result of attention.
            PassError: a mask or position cannot be adapted: names operation, module, source line.
        """
        places = graph.interfaces().resolve_all(self.op.at)
        edit = Editor(graph, str(self))
        found = [_attention(edit, place) for place in places]
        label = unique_label(graph, self.op.label)
        where = places[0].key
        generator = torch.Generator().manual_seed(self.seed)
        first = found[0].key
        nodes = tuple(one.node.name for one in found)
        module = build(
            self.op, BuildContext(fake_tensor(first), where, generator, graph=graph, nodes=nodes)
        )
        entries = inline(edit, label, module, [first], where)
        if self.op.length == 0:
            return edit.finish()
        edit.share(label, entries[0])
        if self.op.gates:
            self._add_gated(edit, label, places, found, entries)
        else:
            self._put_before(edit, label, where, found, entries)
        return edit.finish()

    def _add_gated(
        self,
        edit: Editor,
        label: str,
        places: Sequence[Interface],
        found: Sequence[Attention],
        entries: Sequence[fx.Node],
    ) -> None:
        """Add attention over the prefix alone, multiplied by gates stored after keys and values."""
        for number, (place, attention) in enumerate(zip(places, found, strict=True)):
            gate = entries[2 * len(found) + number]
            pair = entries[2 * number], entries[2 * number + 1]
            new = _added(edit, label, attention, pair, gate, place)
            uses, at = RestoreUses(new.name, place.node), place.key
            edit.record(Insertion("value", label, at, new.name, place.node, uses, self.op.label))

    def _put_before(
        self,
        edit: Editor,
        label: str,
        where: str,
        found: Sequence[Attention],
        entries: Sequence[fx.Node],
    ) -> None:
        """Prepend the prefix to the keys and values of every operation, and adapt masks."""
        before: dict[fx.Node, Call] = {}
        try:
            for group in _by_length(found).values():
                self._follow(edit, label, group, before)
        except RefusalError as refusal:
            raise PassError(f"{self.op.at}: attention cannot take a prefix here: {refusal}") from (
                refusal
            )
        for number, attention in enumerate(found):
            before.setdefault(attention.node, Call.of(attention.node))
            for slot, new in ((1, entries[2 * number]), (2, entries[2 * number + 1])):
                _join(edit, label, attention.node, slot, new)
        node = found[0].node.name
        undo = RestoreCalls(tuple(before.values()))
        edit.record(Insertion("prefix", label, where, node, node, undo, self.op.label))

    def ensures(self, before: Graph, after: Graph) -> None:
        """Prove that the prefix of a text replaces the text itself.

        Raises:
            PassError: it does not.
        """
        if isinstance(self.op.value, TextPrefix) and self.op.length and not self.op.gates:
            places = before.interfaces().resolve_all(self.op.at)
            found = [Attention(before.nodes[place.node]) for place in places]
            prove(before, after, places[0].key, self.op.value.ids, _read_by(found))

    def _follow(
        self, edit: Editor, label: str, group: Sequence[Attention], before: dict[fx.Node, Call]
    ) -> None:
        """Adapt masks, and positions in self-attention, to the longer keys."""
        size = fake_tensor(group[0].key).shape[-2]
        side_inputs = SideInputs(dict(self.op.input_roles), "refuse", {})
        shift = ShiftedMasks(edit, group[0].key, Stretch(size, self.op.length), side_inputs, label)
        moves = self.op.positions == "shift" and any(not is_cross(one) for one in group)
        shift.run([one.node for one in group], moves)
        for node, call in shift.before.items():
            before.setdefault(node, call)


@dataclasses.dataclass(frozen=True)
class RestoreCalls:
    """Undo of a prefix: restores the arguments of attention and of positions."""

    calls: tuple[Call, ...]

    def __call__(self, edit: Editor) -> None:
        """Restore the arguments."""
        for call in self.calls:
            call.restore(edit.node)


def _read_by(found: Sequence[Attention]) -> list[str]:
    """Return the names of the keys and values that operations read."""
    return [node.name for one in found for node in (one.key, one.value)]


def _attention(edit: Editor, place: Interface) -> Attention:
    """Return the attention operation whose result is at an interface."""
    node = edit.node(place.node)
    if node.target is not ATTENTION and any(
        f"{place.key}.{part}" in edit.sites for part in ("weights", "heads[0]")
    ):
        raise InterfaceError(
            f"{place.key} is separated into parts, because the program acts inside of it, so that "
            "it cannot take a prefix",
            ["name other attention for the prefix, such as at='attention[0]'"],
        )
    if node.target is not ATTENTION:
        raise InterfaceError(
            f"{place.key} is not the result of attention, but of {node.name}",
            ["at='attention[*]'", "put the prefix before other parts at the same place"],
        )
    if fake_tensor(node).ndim != 4:
        raise InterfaceError(
            f"{place.key}: attention over {list(fake_tensor(node).shape)}, not [batch, heads, "
            "queries, head size]"
        )
    return Attention(node)


def _by_length(found: Sequence[Attention]) -> dict[tuple[str, bool], list[Attention]]:
    """Group operations over the same axis, which share computations."""
    groups: dict[tuple[str, bool], list[Attention]] = {}
    for one in found:
        size = str(expression(fake_tensor(one.key).shape[-2]))
        groups.setdefault((size, is_cross(one)), []).append(one)
    return groups


def _added(
    edit: Editor,
    label: str,
    attention: Attention,
    pair: tuple[fx.Node, fx.Node],
    gate: fx.Node,
    place: Interface,
) -> fx.Node:
    """Add attention over the prefix alone, multiplied by a gate; return the sum."""
    ops, node = torch.ops.aten, attention.node
    uses = set(uses_of(node))
    following = node.next
    batch = edit.call(ops.sym_size.int, (attention.query, 0), following, label)
    wide = [
        edit.call(ops.expand.default, (one, [batch, *fake_tensor(one).shape]), following, label)
        for one in pair
    ]
    scale = {"scale": attention.argument(6)}
    found = edit.call(ATTENTION, (attention.query, *wide), following, label, scale)
    gated = edit.call(ops.mul.Tensor, (found, gate), following, label)
    result = edit.call(ops.add.Tensor, (node, gated), following, label)
    edit.redirect(node, uses, result, set(uses_of(node)) - uses, place.key)
    return result


def _join(edit: Editor, label: str, node: fx.Node, slot: int, new: fx.Node) -> None:
    """Prepend entries [H, P, d] to the keys or values that an operation reads."""
    ops, old = torch.ops.aten, node.args[slot]
    assert isinstance(old, fx.Node)
    known = set(uses_of(old))
    batch = edit.call(ops.sym_size.int, (old, 0), node, label)
    heads, length, width = fake_tensor(new).shape
    wide = edit.call(ops.expand.default, (new, [batch, heads, length, width]), node, label)
    joined = edit.call(ops.cat.default, ([wide, old], 2), node, label)
    reading = set(uses_of(old)) - known
    edit.redirect(old, {(node, slot)}, joined, reading)
