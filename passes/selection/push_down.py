"""Entries that nobody reads are not computed.

A classifier that reads one token after its last block needs no other token of that block but in
its keys and values. A selection moves up through operations that treat every entry by itself, to
where entries are mixed, or where something else reads the others too.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphprog.ir.dependence.batch_rows import Mixed, Place, batch_rows
from graphprog.ir.fake import fake_tensor
from graphprog.ir.ops import bound
from graphprog.ir.weights import Weights
from graphprog.passes.selection.axis_rules import (
    RESHAPES,
    arguments_of,
    is_pointwise,
    row_arguments,
    shape_of,
)
from graphprog.passes.selection.beginnings import Beginnings, cut_keys
from graphprog.passes.selection.reads import Read, Selection
from graphprog.passes.selection.selections import Selections
from graphprog.passes.selection.unions import unite_reads
from graphprog.passes.selection.writer import Writer, is_named
from graphprog.rewriting.toposort import sort

_aten = torch.ops.aten
_STRETCHES = (_aten.select.int, _aten.slice.Tensor)
_ROUNDS = 4


@dataclasses.dataclass(frozen=True)
class Stop:
    """Where a selection could move no further.

    Attributes:
        node: the operation whose result it selects from.
        reason: why that is computed as a whole.
    """

    node: fx.Node
    reason: str


def push_down_selection(module: fx.GraphModule) -> None:
    """Move selections of entries as far up as they may go, in place.

    Args:
        module: of an exported program, with the value of each node in its metadata; one with
            operations that change their arguments stays as it is.
    """
    if any(_writes(node) for node in module.graph.nodes):
        return
    push_down(module.graph, numbered=False)  # numbers may be a program's, one per row
    module.graph.lint()
    module.recompile()


def push_down(
    code: fx.Graph,
    whole: Collection[fx.Node] = (),
    numbered: bool = True,
    meta: dict[str, Any] | None = None,
    weights: Weights | None = None,
) -> list[Stop]:
    """Move selections of entries as far up as they may go, in place.

    Args:
        code: the operations, without dead code, with fake values.
        whole: nodes that are computed as they are.
        numbered: also move selections by numbers, which may differ by row of the batch.
        meta: further metadata of new nodes.
        weights: the tensors, to find what masks hide; without them keys are not made fewer.

    Returns:
        Where they stopped.
    """
    stops: list[Stop] = []
    for _ in range(_ROUNDS):
        writer = Writer(code, meta)
        if weights is not None:
            unite_reads(writer, whole)
        moving = _Round(writer, whole, numbered, weights)
        moved = moving.run()
        stops = moving.stops if moved or not stops else stops
        if not moved:
            break
    return stops


def _writes(node: fx.Node) -> bool:
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


@dataclasses.dataclass(frozen=True)
class _Moving:
    """A selection that moves.

    Attributes:
        value: what it selects from.
        read: what it selects.
        result: what is read instead of it, during the walk.
        old: the operation that selected.
    """

    value: fx.Node
    read: Read
    result: fx.Node
    old: fx.Node


def _live(code: fx.Graph, whole: Collection[fx.Node]) -> set[fx.Node]:
    """Return the nodes that results are computed from."""
    found: set[fx.Node] = set(whole)
    for node in reversed(code.nodes):
        if node.op == "output" or node in found:
            found |= {node, *node.all_input_nodes}
    return found


class _Round:
    """One walk from the outputs to the inputs."""

    def __init__(
        self,
        writer: Writer,
        whole: Collection[fx.Node],
        numbered: bool,
        weights: Weights | None,
    ) -> None:
        self.writer = writer
        self.code = writer.code
        self.whole = frozenset(whole)
        self.numbered = numbered
        indexing = self.code.find_nodes(op="call_function", target=_aten.index.Tensor)
        self.axes: dict[fx.Node, Place] = batch_rows(self.code) if numbered and indexing else {}
        self.selections = Selections(writer, self.axes)
        self.stops: list[Stop] = []
        self.reads: dict[fx.Node, dict[fx.Node, Read]] = {}
        self.fewer: dict[fx.Node, Read] = {}
        self.weights = weights
        self.beginnings: Beginnings | None = None
        self.begun: set[fx.Node] = set()

    def run(self) -> bool:
        """Move selections, and return whether one did."""
        selecting = self._written_out()
        if self.weights is not None:
            self.beginnings = Beginnings(self.code, self.weights, self.whole)
        self.live = _live(self.code, self.whole)
        for node in reversed(list(self.code.nodes)):
            if (own := selecting.get(node)) is not None:
                self._ask(node, self._along([(own.value, own.read.axis)], own.read))
            elif node in self.reads:
                self._pass_on(node)
        moved = any(one.value in self.fewer for one in selecting.values())
        for node, read in self.fewer.items():
            self._narrow(node, read)
        for node, readers in self.reads.items():
            if node not in self.fewer:
                self._select(node, readers)
        for node in self.begun:
            cut_keys(self.writer, node, self.fewer[node])
        for new, one in selecting.items():
            self._restore(new, one)
        sort(self.code)
        for node in reversed(list(self.code.nodes)):
            if not node.users and node.op == "call_function" and node not in self.whole:
                self.code.erase_node(node)
        return moved

    def _pass_on(self, node: fx.Node) -> None:
        """Ask the operands of a value for fewer entries, if no others of it are read."""
        read = self._common(node)
        wanted = None if read is None else self._wanted(node, read)
        if read is not None and wanted is not None:
            self.fewer[node] = read
            self._ask(node, wanted)
        elif isinstance(node.meta["val"], list | tuple):  # only its parts can be selected from
            for part in self.reads.pop(node):
                del self.fewer[part]

    def _restore(self, new: fx.Node, one: _Moving) -> None:
        """Let the operation that selected compute its value again, from fewer entries."""
        moved, old, keeps = one.value in self.fewer, one.old, one.result is new
        if moved and keeps:
            new.target, new.args, new.kwargs = _aten.alias.default, (one.value,), {}
        elif moved:
            new.replace_all_uses_with(one.value)
        if moved or one.result in self.fewer:
            old.target, old.args, old.kwargs = one.result.target, one.result.args, {}
            old.meta["val"] = one.result.meta["val"]
        one.result.replace_all_uses_with(old, lambda user: user is not old)

    def _written_out(self) -> dict[fx.Node, _Moving]:
        """Write every selection as a node that keeps its axis, then another that drops it."""
        found = {}
        for node in list(self.code.nodes):
            left = node in self.whole or not (self.numbered or node.target in _STRETCHES)
            known = None if left else self.selections.of(node)
            if known is None or (known.read.by_row and not self.axes):
                continue
            new = self.writer.selected(known.value, known.read)
            result = new
            if not known.keeps:
                result = self.writer.call(_aten.select.int, new, known.read.axis, 0)
            node.replace_all_uses_with(result)
            found[new] = _Moving(known.value, known.read, result, node)
            self._place(new, result, known)
        sort(self.code)
        return found

    def _place(self, new: fx.Node, result: fx.Node, known: Selection) -> None:
        """Say where the rows of the batch lie in new values."""
        if known.value not in self.axes:
            return
        place = self.axes[known.value]
        if isinstance(place, int) and place == known.read.axis:
            place = Mixed(new)
        self.axes[new] = place
        if isinstance(place, int) and not known.keeps:
            place -= known.read.axis < place
        self.axes[result] = place

    def _along(self, arguments: list[tuple[fx.Node, int]], read: Read) -> dict[fx.Node, Read]:
        """Return the same entries of operands, along an axis of each."""
        return {
            one: read.along(axis, read.by_row and self.selections.is_rows(one) is None)
            for one, axis in arguments
        }

    def _ask(self, node: fx.Node, wanted: Mapping[fx.Node, Read]) -> None:
        for operand, read in wanted.items():
            self.reads.setdefault(operand, {})[node] = read

    def _common(self, node: fx.Node) -> Read | None:
        """Return what all that read a value read of it, if that is the same."""
        reads = self.reads.get(node, {})
        found = set(reads.values())
        if not found or any(read.stays for read in found):
            return None
        others = [user for user in node.users if user not in reads and user in self.live]
        (read, *different) = found
        if node in self.whole or others or different:
            by = f" by {_name(others[0])}" if others else ""
            self.stops.append(Stop(node, f"all of it, or other parts, are read{by}"))
            return None
        return read

    def _wanted(self, node: fx.Node, read: Read) -> dict[fx.Node, Read] | None:
        """Return which entries of operands the entries of a value are computed from."""
        if node.op != "call_function":
            return None
        if self.beginnings and (wanted := self.beginnings.operands(node, read)) is not None:
            self.begun.add(node)
            return wanted
        found = row_arguments(node, read.axis)
        if found is None:
            self.stops.append(Stop(node, "it needs all entries of its operands"))
        elif read.by_row and not self._keeps_rows(node, read.axis, found):
            self.stops.append(Stop(node, "rows of the batch would select from shared entries"))
            return None
        return None if found is None else self._along(found, read)

    def _keeps_rows(self, node: fx.Node, axis: int, found: list[tuple[fx.Node, int]]) -> bool:
        """Whether entries that differ by row can be selected from the operands instead."""
        place = self.selections.is_rows(node)
        if place is None or place == axis:
            return False
        for argument, own in found:
            rows = self.selections.is_rows(argument)
            mask = is_named(node, "scaled_dot_product_attention")
            alike = argument in self.axes and self.axes[argument] is None
            spread = (is_pointwise(node) or mask) and alike and place == 0
            if rows == own or (rows is None and not spread):
                return False
        return True

    def _narrow(self, node: fx.Node, read: Read) -> None:
        """Compute fewer entries of a value."""
        if node.target in RESHAPES or node.target is _aten.expand.default:
            sizes = list(arguments_of(node)[1])
            sizes[read.axis] = self._length(read)
            if node.target in RESHAPES:
                node.target = _aten.reshape.default
            node.args = (node.args[0], sizes, *node.args[2:])
        causal = is_named(node, "scaled_dot_product_attention") and bound(node)["is_causal"]
        if causal and node not in self.begun:
            self._write_mask(node, read)
        node.meta["val"] = pytree.tree_map_only(
            torch.Tensor, lambda value: _narrowed(value, read), node.meta["val"]
        )

    def _length(self, read: Read) -> Any:
        if isinstance(read.length, int):
            return read.length
        return self.writer.once(_aten.sym_size.int, read.index, -1)

    def _write_mask(self, node: fx.Node, read: Read) -> None:
        """Let fewer queries attend to the keys up to each, by a mask."""
        given = bound(node)
        mask = None
        if read.span != (-1, sys.maxsize):  # the last query hides nothing
            call, keys = self.writer.once, given["key"]
            size: Any = fake_tensor(keys).shape[-2]
            count = size if isinstance(size, int) else call(_aten.sym_size.int, keys, -2)
            device = fake_tensor(keys).device
            every = self.writer.call(_aten.arange.default, count, device=device)
            own = self.writer.numbers(read, count, device)
            for _ in range(len(shape_of(node)) - 3 if read.by_row else 0):
                own = call(_aten.unsqueeze.default, own, 1)
            mask = self.writer.call(_aten.le.Tensor, every, call(_aten.unsqueeze.default, own, -1))
        kwargs = {name: given[name] for name in ("scale", "enable_gqa") if given.get(name)}
        node.args = (given["query"], given["key"], given["value"], mask)
        node.kwargs = kwargs

    def _select(self, node: fx.Node, readers: Mapping[fx.Node, Read]) -> None:
        """Select entries of a value for those that read no others."""
        chosen: dict[tuple[Read, int], fx.Node] = {}
        for reader, read in readers.items():
            if reader not in self.fewer:
                continue
            rank = len(shape_of(reader)) if read.stays else 0
            if (read, rank) not in chosen:
                batch = self.selections.is_rows(node) if read.by_row else 0
                chosen[read, rank] = self.writer.selected(node, read, batch, rank)
            reader.replace_input_with(node, chosen[read, rank])


def _narrowed(value: torch.Tensor, read: Read) -> torch.Tensor:
    shape: list[Any] = list(value.shape)
    shape[read.axis] = read.length
    return value.new_empty(shape)


def _name(node: fx.Node) -> str:
    return "the results" if node.op == "output" else node.name
