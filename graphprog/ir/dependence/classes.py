"""The class of every value: what it depends on (binding times, in partial evaluation)."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import fx, nn

from graphprog.ir.dependence.batch_rows import Mixed, Place, batch_rows, depends_on
from graphprog.ir.parts.cost import flops_of
from graphprog.ir.parts.cut import bytes_of
from graphprog.ir.printing import (
    Printable,
    node_line,
    operator_name,
    provenance_of,
    returned,
    signature,
    value_names,
)
from graphprog.ir.records import Insertion, Mode
from graphprog.ir.weights import Weights
from graphprog.utils.columns import columns

WEIGHTS, PROGRAM, SAMPLES = "weights", "program", "samples"
MATES, RANDOM = "batch-mates", "random numbers"
_ORDER = (WEIGHTS, PROGRAM, SAMPLES, MATES, RANDOM)
Class = frozenset[str]


class Explained(Printable, Protocol):
    """The fields of a graph that decide on what its values depend."""

    @property
    def weights(self) -> Weights:
        """The tensors."""

    @property
    def modes(self) -> Sequence[Mode]:
        """Values that differ in training."""

    @property
    def insertions(self) -> Sequence[Insertion]:
        """Changes made by programs."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dependence:
    """What each value of a graph depends on; prints as a table.

    ``weights`` are those of the source, and tensors of a program that training leaves as they are;
    ``program`` are its other tensors; ``samples`` are the inputs; ``batch-mates`` says that it is
    not proved that a row depends on its own sample alone. A value that depends only on the lengths
    of inputs depends on none of these.

    Attributes:
        graph: the graph.
        classes: what each value depends on, by node.
        axes: axis of the rows of the batch, by node; None for a value that is the same for all.
        notes: what of it is not computed, and why not less is.
    """

    graph: Explained
    classes: Mapping[fx.Node, Class]
    axes: Mapping[fx.Node, Place]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, graph: Explained) -> Dependence:
        """Find what the values of a graph depend on, in evaluation and in training."""
        trained = _trained(graph)
        modes = {name for mode in graph.modes for name in mode.nodes}
        axes = batch_rows(graph.code)
        classes: dict[fx.Node, Class] = {}
        for node in graph.code.nodes:
            found = frozenset().union(*(classes[part] for part in depends_on(node)))
            classes[node] = found | _own(node, trained)
            if node.name in modes:
                classes[node] |= {PROGRAM}
            if SAMPLES in classes[node] and isinstance(axes.get(node), Mixed):
                classes[node] |= {MATES}
        return cls(graph, classes, axes)

    @cached_property
    def flops(self) -> Mapping[str, int]:
        """Floating-point operations of every node, as PyTorch counts them on fake tensors."""
        return flops_of(self.graph.code)

    def rows(self) -> list[tuple[str, int, int, int]]:
        """Return name, number of values, bytes and FLOPs of each class, at the sizes of capture."""
        found: dict[str, list[int]] = {}
        for node in self._live():
            name = class_name(self.classes[node])
            counts = found.setdefault(name, [0, 0, 0])
            counts[0] += 1
            counts[1] += sum(map(bytes_of, _tensors(node.meta.get("val"))))
            counts[2] += self.flops[node.name]
        order = sorted(found.items(), key=lambda row: (row[0].count("+"), row[0]))
        return [(name, count, size, work) for name, (count, size, work) in order]

    def mixing(self) -> list[str]:
        """Return the operations from which on rows are not proved to be independent."""
        mates = [place for node, place in self.axes.items() if MATES in self.classes[node]]
        nodes = dict.fromkeys(place.node for place in mates if isinstance(place, Mixed))
        return [
            " of ".join(filter(None, [operator_name(node), provenance_of(node)]))
            if node.op == "call_function"
            else f"input {node.target}, where not every input has rows on axis 0"
            for node in nodes
        ]

    @property
    def text(self) -> str:
        """The graph with a column that says what each value depends on."""
        graph, names = self.graph, value_names(self.graph)
        nodes = list(self._live())
        classes = [class_name(self.classes[node]) for node in nodes]
        width = max(map(len, classes), default=0)
        lines = [signature(graph, graph.name)]
        for node, name in zip(nodes, classes, strict=True):
            lines.append(f"  {name:{width}}{node_line(graph, node, names, provenance=False)}")
        return "\n".join([*lines, f"  {'':{width}}{returned(graph, names)}"])

    def __str__(self) -> str:
        rows = self.rows()
        _, *counts = zip(*rows, strict=True) if rows else ((),) * 4
        values, size, flops = map(sum, counts)
        cells = [
            (name, str(n), f"{some:,}", _share(some, size), f"{work:,}", _share(work, flops))
            for name, n, some, work in rows
        ]
        cells.append(("all", str(values), f"{size:,}", "", f"{flops:,}", ""))
        lines = columns(cells, ("depends on", "values", "bytes", "share", "FLOPs", "share"))
        mixing = self.mixing()
        if mixing:
            more = f" and {len(mixing) - 3} more" if len(mixing) > 3 else ""
            lines.append(f"rows may mix in: {', '.join(mixing[:3])}{more}")
        return "\n".join([*lines, *self.notes])

    __repr__ = __str__

    def _live(self) -> Iterable[fx.Node]:
        """Yield the operations on tensors that an output or a mode reads."""
        modes = {name for mode in self.graph.modes for name in mode.nodes}
        needed: set[fx.Node] = set()
        for node in reversed(self.graph.code.nodes):
            if node.op == "output" or node in needed or node.name in modes:
                needed.update(node.all_input_nodes)
                needed.add(node)
        for node in self.graph.code.nodes:
            tensors = bool(_tensors(node.meta.get("val")))
            if node.op == "call_function" and node in needed and tensors:
                yield node


def class_name(found: Class) -> str:
    """Return the name of a class, such as ``weights + samples``."""
    return " + ".join(name for name in _ORDER if name in found) or "nothing"


def _own(node: fx.Node, trained: frozenset[str]) -> Class:
    """Return what a node reads beside the values of others."""
    if node.op == "placeholder":
        return frozenset({SAMPLES})
    if node.op == "get_attr":
        return frozenset({PROGRAM if str(node.target) in trained else WEIGHTS})
    return frozenset({RANDOM}) if draws(node) else frozenset()


def draws(node: fx.Node) -> bool:
    """Whether an operation draws random numbers; dropout and attention need not."""
    target = node.target
    if torch.Tag.nondeterministic_seeded not in getattr(target, "tags", ()):
        return False
    if not isinstance(target, torch._ops.OpOverload):
        return True
    arguments = [one.name for one in target._schema.arguments]
    given = {**dict(zip(arguments, node.args, strict=False)), **node.kwargs}
    if "train" in arguments:
        return given.get("train") is not False
    return "dropout_p" not in arguments or bool(given.get("dropout_p", 0.0))


def _trained(graph: Explained) -> frozenset[str]:
    """Return the tensors of a program that training changes.

    They are parameters, buffers that a training step updates, and those of the alignment, which
    may be counted anew.
    """
    updated = {path for mode in graph.modes for path in mode.updates}
    aligned = tuple(f"{one.name}" for one in graph.insertions if one.kind == "output")
    found = set()
    for node in graph.code.find_nodes(op="get_attr"):
        path = str(node.target)
        if not path.startswith("program."):
            continue
        tensor = operator.attrgetter(path)(graph.weights)
        counted = bool(aligned) and path.split(".")[1].startswith(aligned)
        learns = isinstance(tensor, nn.Parameter) and tensor.requires_grad
        if learns or path in updated or counted:
            found.add(path)
    return frozenset(found)


def _tensors(value: Any) -> list[torch.Tensor]:
    values = value if isinstance(value, list | tuple) else [value]
    return [one for one in values if isinstance(one, torch.Tensor)]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"
