"""Graphs as JSON values, which the graph page reads."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import fx

from graphprog.ir.dependence.classes import Dependence, Explained, class_name
from graphprog.ir.drawing.recorded import described
from graphprog.ir.interface import Interface, InterfaceTable
from graphprog.ir.printing import call_text, module_path, operator_name, part_of, value_type
from graphprog.ir.reading.diff import matched_names
from graphprog.ir.records import Steps
from graphprog.utils.user_frames import is_users

_FRAME = re.compile(r'File "(.+?)", line (\d+), in .*\n +(.*)')
_NUMBERED = re.compile(r"_\d+$")
_LONGEST = 400


class Drawn(Explained, Protocol):
    """The fields of a graph that are drawn."""

    @property
    def history(self) -> Steps:
        """Passes that ran."""

    def interfaces(self) -> InterfaceTable:
        """Return the places where a program can act."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A graph of a page, with the name that it has there.

    Attributes:
        label: such as the text of the pass that made it.
        graph: the graph.
        derived: whether passes made it from the stage before: operations that were not replaced
            have the same names then.
    """

    label: str
    graph: Drawn
    derived: bool = True


def document_of(
    stages: Sequence[Stage], values: Mapping[str, torch.Tensor] | None = None
) -> dict[str, Any]:
    """Return what the page shows.

    Operations that several graphs share are stored once. All texts are in one list; other places
    hold numbers of it.

    Args:
        stages: the graphs, each one compared with the one before.
        values: recorded values, by name of an interface of the last graph.

    Raises:
        InterfaceError: a recorded value is of no interface.
    """
    names: dict[fx.Node, str] = {}
    table, records = _Numbers(), _Numbers()
    graphs = []
    before: Stage | None = None
    for stage in stages:
        own = {node: node.name for node in stage.graph.code.nodes}
        if before is not None and not stage.derived:
            own = matched_names(before.graph, stage.graph, {node: names[node] for node in names})
        names, before = own, stage
        graphs.append(_graph(stage, own, table, records))
    last = stages[-1].graph
    return {
        "version": 1,
        "title": last.name,
        "strings": table.items,
        "records": records.items,
        "graphs": graphs,
        "history": [[one.text, one.milliseconds, one.changed, one.nodes] for one in last.history],
        "values": _values(last, values or {}),
    }


class _Numbers:
    """Numbers of different things, in the order in which they are met."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}

    def __call__(self, item: Any) -> int:
        return self._numbers.setdefault(item, len(self._numbers))

    @property
    def items(self) -> list[Any]:
        return [*self._numbers]


def _graph(
    stage: Stage, names: Mapping[fx.Node, str], table: _Numbers, records: _Numbers
) -> dict[str, Any]:
    graph, nodes = stage.graph, _in_order(stage.graph.code)
    operators = {one.name: one.label or _NUMBERED.sub("", one.name) for one in graph.insertions}
    classes = Dependence.of(graph).classes
    by_name = {node.name: node for node in graph.code.nodes}
    return {
        "label": stage.label,
        "name": graph.name,
        "derived": stage.derived,
        "nodes": [records(_record(graph, node, names, operators, table)) for node in nodes],
        "depends": [table(class_name(classes[node])) for node in nodes],
        "interfaces": [_interface(one, names, by_name) for one in graph.interfaces().values()],
        "insertions": [
            [one.kind, one.name, operators[one.name], one.at, names[by_name[one.result]]]
            for one in graph.insertions
        ],
    }


def _in_order(code: fx.Graph) -> list[fx.Node]:
    """Return what is drawn: operations, inputs, and tensors of programs before their first use."""
    found: list[fx.Node] = []
    placed: set[fx.Node] = set()
    for node in code.nodes:
        if node.op == "get_attr":
            continue
        for part in node.all_input_nodes:
            if _is_of_program(part) and part not in placed:
                placed.add(part)
                found.append(part)
        found.append(node)
    return found


def _is_of_program(node: fx.Node) -> bool:
    return node.op == "get_attr" and str(node.target).startswith("program.")


def _record(
    graph: Drawn,
    node: fx.Node,
    names: Mapping[fx.Node, str],
    operators: Mapping[str, str],
    table: _Numbers,
) -> tuple[Any, ...]:
    """Return kind, name, operation, call, type, module, part, operator, source, inputs, weights."""
    part, where = part_of(node), module_path(node)
    if node.op == "get_attr":
        part = str(node.target).split(".")[1]
    where = "" if part else where
    weights = [one for one in node.all_input_nodes if one.op == "get_attr"]
    drawn = [one for one in node.all_input_nodes if one.op != "get_attr" or _is_of_program(one)]
    texts = (
        node.op,
        names[node],
        operator_name(node) if node.op == "call_function" else str(node.target),
        _call(graph, node, names),
        value_type(node.meta.get("val"), graph),
        where,
        part,
        operators.get(part, _NUMBERED.sub("", part)),
        _source_line(node),
    )
    return (
        *map(table, texts),
        tuple(table(names[one]) for one in drawn),
        tuple(
            table(f"{_path(one)} {value_type(one.meta.get('val'), graph)}".strip())
            for one in weights
        ),
    )


def _call(graph: Drawn, node: fx.Node, names: Mapping[fx.Node, str]) -> str:
    if node.op != "call_function":
        return ""
    texts = {
        one: _path(one) if one.op == "get_attr" else f"%{names[one]}"
        for one in node.all_input_nodes
    }
    text = call_text(graph, node, texts)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _path(node: fx.Node) -> str:
    return str(node.target).removeprefix("source.")


def _source_line(node: fx.Node) -> str:
    """Return file, line and text of the innermost line of the model's code; paths are short."""
    for name, number, line in reversed(_FRAME.findall(node.meta.get("stack_trace") or "")):
        if is_users(name):
            short = name.rpartition("site-packages" + os.sep)[2]
            if os.path.isabs(short) and short.startswith(os.getcwd() + os.sep):
                short = os.path.relpath(short)
            return f"{short}:{number}: {line.strip()}"
    return ""


def _interface(
    one: Interface, names: Mapping[fx.Node, str], by_name: Mapping[str, fx.Node]
) -> list[Any]:
    node = names[by_name[one.node]]
    return [one.key, one.kind, one.type_text, node, len(one.edges), [*one.aliases], one.module]


def _values(graph: Drawn, values: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    table = graph.interfaces()
    return dict(_described(table, values)) if values else {}


def _described(
    table: InterfaceTable, values: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, value in values.items():
        if not name.endswith(".indices"):
            yield table.resolve(name).key, {"name": name, **described(name, value)}
