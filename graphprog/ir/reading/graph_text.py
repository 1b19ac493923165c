"""The text of a graph for people: repeated blocks are folded, weight names are relative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx

from graphprog.ir.printing import (
    Printable,
    call_text,
    provenance_of,
    returned,
    signature,
    value_names,
    value_type,
)
from graphprog.ir.reading.folding import Row, Run, folded, range_label

_WIDEST = 100
_TO_THE_END = str(2**63 - 1)


def folded_text(graph: Printable) -> str:
    """Print one line per node, and repeats as one block with the values passed between them.

    Blocks are folded if they differ only in the numbers of modules, weights and values. Weights of
    the module that a line comes from are printed without its path.
    """
    nodes = [node for node in graph.code.nodes if node.op == "call_function"]
    names = value_names(graph)
    rows = [_row(graph, node, names) for node in nodes]
    links = _Links(nodes)
    lines: list[str | tuple[str, str, str]] = []
    for entry in folded(rows, linked=links.hold):
        if isinstance(entry, int):
            lines.append(_cells(graph, nodes[entry], names, "  "))
            continue
        lines.append(f"  {_label(entry, nodes)}{_chain(entry, nodes, links, names)}")
        block = nodes[entry.start : entry.start + entry.period]
        lines += [_cells(graph, node, names, "    ") for node in block]
    return "\n".join([signature(graph, graph.name), *_aligned(lines), returned(graph, names)])


def _row(graph: Printable, node: fx.Node, names: Mapping[fx.Node, str]) -> Row:
    """What two nodes have in common that repeat each other, without the values they read."""
    weights = [names[part] for part in node.all_input_nodes if part.op == "get_attr"]
    blank = dict.fromkeys(node.all_input_nodes, "%")
    call = call_text(graph, node, blank)
    return Row(
        " ".join([provenance_of(node), *weights]), (call, value_type(node.meta.get("val"), graph))
    )


class _Links:
    """Values that the nodes of repeats read: the same ones, or those one repeat later."""

    def __init__(self, nodes: Sequence[fx.Node]) -> None:
        self._nodes = nodes
        self._order = {node: place for place, node in enumerate(nodes)}
        self._read = [_read(node) for node in nodes]

    def carried(self, run: Run) -> dict[fx.Node, fx.Node] | None:
        """What the first repeat reads to what the second reads in its place; None if unclear."""
        found: dict[fx.Node, fx.Node] = {}
        for row in range(run.start, run.start + run.period):
            pairs = zip(self._read[row], self._read[row + run.period], strict=True)
            for one, other in pairs:
                if not self._is_within(one, run) and found.setdefault(one, other) is not other:
                    return None
        found = {one: other for one, other in found.items() if one is not other}
        return found if len(set(found.values())) == len(found) else None

    def hold(self, run: Run) -> bool:
        """Whether the last repeat reads what the one before it reads, one repeat later."""
        first = run.count == 2
        for row in range(run.last(run.start), run.stop):
            for one, other in zip(self._read[row - run.period], self._read[row], strict=True):
                place, other_place = self._order.get(one, -1), self._order.get(other, -1)
                enters = first and place < run.start <= other_place < run.start + run.period
                later = min(place, other_place) >= 0 and other_place - place == run.period
                if one is not other and not later and not enters:
                    return False
        return not first or self.carried(run) is not None

    def _is_within(self, node: fx.Node, run: Run) -> bool:
        return run.start <= self._order.get(node, -1) < run.start + run.period

    def later(self, node: fx.Node, run: Run, repeats: int) -> fx.Node:
        """The value that stands some repeats later where this one stands."""
        return self._nodes[self._order[node] + repeats * run.period]


def _read(node: fx.Node) -> list[fx.Node]:
    """The values a node reads, in order; weights are compared by name."""
    found: list[fx.Node] = []

    def visit(part: fx.Node) -> Any:
        if part.op != "get_attr":
            found.append(part)
        return part

    fx.node.map_arg((node.args, node.kwargs), visit)
    return found


def _label(run: Run, nodes: Sequence[fx.Node]) -> str:
    """Such as ``blocks.0–11 ×12``."""
    places = range(run.start, run.start + run.period)
    ends = [(provenance_of(nodes[row]), provenance_of(nodes[run.last(row)])) for row in places]
    first, last = next((pair for pair in ends if pair[0] != pair[1]), ends[0])
    return f"{range_label(first, last)} ×{run.count}".lstrip()


def _chain(run: Run, nodes: Sequence[fx.Node], links: _Links, names: Mapping[fx.Node, str]) -> str:
    """Such as ``: %6 → %24 → … → %222``, for each value that goes from repeat to repeat."""
    chains = []
    for entry, result in (links.carried(run) or {}).items():
        middle = [result] if run.count < 3 else [result, None]
        last = links.later(result, run, run.count - 1)
        chains.append(
            " → ".join("…" if node is None else names[node] for node in (entry, *middle, last))
        )
    return f": {', '.join(chains)}" if chains else ""


def _cells(
    graph: Printable, node: fx.Node, names: Mapping[fx.Node, str], indent: str
) -> tuple[str, str, str]:
    where = provenance_of(node)
    short = {part: _short(names[part], where) for part in node.all_input_nodes}
    call = call_text(graph, node, short).replace(_TO_THE_END, "end")
    text = f"{indent}{names[node]} = {call}"
    return text, value_type(node.meta.get("val"), graph), f"@{where}" if where else ""


def _short(name: str, where: str) -> str:
    """Shorten a weight of the module that the line comes from to ``.weight``."""
    return name.removeprefix(where) if where and name.startswith(f"{where}.") else name


def _aligned(lines: Sequence[str | tuple[str, str, str]]) -> list[str]:
    """Align cells in columns; an overlong cell shifts only its own line."""
    cells = [line for line in lines if not isinstance(line, str)]
    first = max((len(line[0]) for line in cells if len(line[0]) <= _WIDEST), default=0)
    second = max((len(line[1]) for line in cells if len(line[1]) <= _WIDEST // 3), default=0)
    return [
        line
        if isinstance(line, str)
        else f"{line[0].ljust(first)}  {line[1].ljust(second)}  {line[2]}".rstrip()
        for line in lines
    ]
