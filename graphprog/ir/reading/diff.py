"""Differences between the operations of two graphs, whatever the names of their values."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

from torch import fx
from torch.utils import _pytree as pytree

from graphprog.ir.printing import (
    Printable,
    call_text,
    module_path,
    node_line,
    part_of,
    provenance_of,
    returned,
    signature,
    value_names,
    value_type,
)


def diff_text(before: Printable, after: Printable, derived: bool) -> str:
    """Return the lines that differ, in hunks with their location; empty if there are none.

    Operations are matched first, and matched values have the same name in both, so that another
    numbering is not a difference. Nor is another shape of a result if the shape of an argument
    differs. Lines of ``before`` begin with ``-``, those of ``after`` with ``+``.

    Args:
        before: one graph.
        after: the other.
        derived: whether passes made one from the other, or both from a third: operations that
            were not replaced have the same names then.
    """
    if before is after:
        return ""
    match = _matched(before, after, derived)
    names = value_names(before)
    texts = names | _names_after(after, match, names)
    lines = [line for hunk in _hunks(before, after, match, texts) for line in hunk.lines]
    return "\n".join([f"--- {before.name}", f"+++ {after.name}", *lines]) if lines else ""


def matched_names(
    before: Printable, after: Printable, names: Mapping[fx.Node, str]
) -> dict[fx.Node, str]:
    """Return names for the second graph's nodes: those of the first for matched nodes.

    Args:
        before: one graph.
        after: the other, which passes did not make from it.
        names: names of the first graph's nodes.
    """
    match, taken = _matched(before, after, derived=False), set(names.values())
    found: dict[fx.Node, str] = {}
    for node in after.code.nodes:
        old = match.before.get(node)
        name = node.name if old is None else names[old]
        while old is None and name in taken:
            name += "'"
        taken.add(name)
        found[node] = name
    return found


class _Match:
    """Matched nodes of two graphs."""

    def __init__(self) -> None:
        self.after: dict[fx.Node, fx.Node] = {}
        self.before: dict[fx.Node, fx.Node] = {}

    def add(self, one: fx.Node, other: fx.Node) -> None:
        if one not in self.after and other not in self.before:
            self.after[one], self.before[other] = other, one


def _matched(before: Printable, after: Printable, derived: bool) -> _Match:
    match = _Match()
    inputs = {str(node.target): node for node in after.placeholders}
    for node in before.placeholders:
        if str(node.target) in inputs:
            match.add(node, inputs[str(node.target)])
    match.add(before.code.output_node(), after.code.output_node())
    pairs = _same_order(before, after, derived)
    for one, other in itertools.chain(_same_name(before, after), pairs) if derived else pairs:
        match.add(one, other)
    for node in reversed(after.code.nodes):
        if node in match.before:
            for one, other in _read_by_both(match.before[node], node):
                match.add(one, other)
    return match


def _same_name(before: Printable, after: Printable) -> Iterator[tuple[fx.Node, fx.Node]]:
    others = {node.name: node for node in after.code.nodes}
    for one in before.code.nodes:
        other = others.get(one.name)
        if other is not None and not part_of(one) and _kind(one) == _kind(other):
            yield one, other


def _same_order(
    before: Printable, after: Printable, of_program: bool
) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Match operations in their order, or those of programs alone, whose names are chance."""
    ones, others = (
        [
            node
            for node in graph.code.nodes
            if node.op == "call_function" and (part_of(node) or not of_program)
        ]
        for graph in (before, after)
    )
    matcher = SequenceMatcher(None, [*map(_kind, ones)], [*map(_kind, others)], autojunk=False)
    for start, other_start, size in matcher.get_matching_blocks():
        yield from zip(ones[start : start + size], others[other_start:], strict=False)


def _kind(node: fx.Node) -> tuple[Any, str, str]:
    return node.target, module_path(node), part_of(node)


def _read_by_both(one: fx.Node, other: fx.Node) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Yield operations of the same kind that two matched nodes read in the same place."""
    leaves, others = (pytree.tree_leaves((node.args, node.kwargs)) for node in (one, other))
    for leaf, other_leaf in zip(leaves, others, strict=False):
        if isinstance(leaf, fx.Node) and isinstance(other_leaf, fx.Node):
            called = leaf.op == other_leaf.op == "call_function"
            if called and leaf.target is other_leaf.target:
                yield leaf, other_leaf


def _names_after(
    after: Printable, match: _Match, before: Mapping[fx.Node, str]
) -> dict[fx.Node, str]:
    """Return names for the second graph's values: those of the first for matched nodes."""
    names, taken = value_names(after), set(before.values())
    numbers: defaultdict[str, itertools.count[int]] = defaultdict(itertools.count)
    for node in after.code.nodes:
        if node in match.before and node.op != "output":
            names[node] = before[match.before[node]]
        elif node.op == "call_function":
            part = part_of(node) or "new"
            free = (f"%{part}.{number}" for number in numbers[part])
            names[node] = next(name for name in free if name not in taken)
    return names


@dataclasses.dataclass
class _Hunk:
    """Consecutive lines that differ."""

    where: str = ""
    gone: list[str] = dataclasses.field(default_factory=list)
    new: list[str] = dataclasses.field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        minus, plus = (f"-{line}" for line in self.gone), (f"+{line}" for line in self.new)
        return [f"@@ {self.where} @@", *minus, *plus] if self.gone or self.new else []


def _hunks(
    before: Printable, after: Printable, match: _Match, names: Mapping[fx.Node, str]
) -> Iterator[_Hunk]:
    """Yield the differences, in the order of the second graph."""
    heads = signature(before, ""), signature(after, "")
    if heads[0] != heads[1]:
        yield _Hunk("inputs and outputs", [heads[0]], [heads[1]])
    olds = [node for node in before.code.nodes if node.op == "call_function"]
    order = {node: place for place, node in enumerate(olds)}
    hunk, done = _Hunk(), 0

    def lose(until: int) -> None:
        lost = [node for node in olds[done:until] if node not in match.after]
        hunk.gone += [node_line(before, node, names) for node in lost]
        hunk.where = next((where for node in lost if (where := provenance_of(node))), hunk.where)

    for node in after.code.nodes:
        if node.op != "call_function":
            continue
        old = match.before.get(node)
        if old is not None and order[old] >= done:
            lose(order[old])
            done = order[old] + 1
        if old is not None and _is_same(before, old, after, node, match, names):
            yield hunk
            hunk = _Hunk()
            continue
        hunk.gone += [node_line(before, old, names)] if old is not None else []
        hunk.new.append(node_line(after, node, names))
        hunk.where = provenance_of(node) or hunk.where
    lose(len(olds))
    results = returned(before, names), returned(after, names)
    if results[0] != results[1]:
        hunk.gone.append(results[0])
        hunk.new.append(results[1])
        hunk.where = hunk.where or "end"
    yield hunk


def _is_same(
    before: Printable,
    old: fx.Node,
    after: Printable,
    new: fx.Node,
    match: _Match,
    names: Mapping[fx.Node, str],
) -> bool:
    """Whether two matched operations read the same, with shapes that differ only if operands do."""
    if call_text(before, old, names) != call_text(after, new, names):
        return False

    def differ(one: fx.Node, other: fx.Node | None) -> bool:
        types = [
            value_type(node.meta.get("val"), graph)
            for node, graph in ((one, before), (other, after))
            if node is not None
        ]
        return len(set(types)) > 1

    read = [part for part in old.all_input_nodes if part.op != "get_attr"]
    return not differ(old, new) or any(differ(part, match.after.get(part)) for part in read)
