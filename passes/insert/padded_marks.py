"""Marks of tokens, padded where a program inserted entries among the tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from graphprog.analysis.axis_lineage import Lineage
from graphprog.ir.fake import fake_tensor, fake_value
from graphprog.ir.graph import Graph, Insertion
from graphprog.ir.ops import schema_name
from graphprog.ir.sizes import same_size
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.refusal import RefusalError

_aten = torch.ops.aten


def padded_marks(
    edit: Editor, graph: Graph, value: fx.Node, marks: fx.Node, fill: int, part: str
) -> fx.Node:
    """Return marks [B, S] of tokens as marks of the entries of a value [B, S + P, ...].

    They are returned unchanged where the value has no inserted entries, and where the positions of
    these cannot be determined.

    Args:
        edit: the editor of the graph.
        graph: the graph before the edit.
        value: the value in which entries were inserted.
        marks: an input, one number per token.
        fill: mark of an inserted entry.
        part: part of the program that the operations belong to.
    """
    shapes = (fake_tensor(value).shape, fake_tensor(marks).shape)
    if min(map(len, shapes)) < 2 or same_size(shapes[0][1], shapes[1][1]):
        return marks
    found = marks
    for number, insertion in enumerate(graph.insertions):
        if insertion.kind != "axis":
            continue
        try:
            place = _place(graph, number, insertion, value.name)
        except RefusalError:
            return marks
        if place is not None:
            found = _padded(edit, found, place, fill, part)
    return found


def _place(
    graph: Graph, number: int, insertion: Insertion, value: str
) -> tuple[int | None, int] | None:
    """Return offset and number of the entries on axis 1 of a value; an offset of None is the end.

    Raises:
        RefusalError: the positions cannot be determined.
    """
    joined = graph.nodes[insertion.result]
    if schema_name(joined) != "aten::cat":
        raise RefusalError(joined, "it is not a concatenation")
    parts: Sequence[fx.Node] = joined.args[0]  # type: ignore[assignment]
    axis = joined.args[1] if len(joined.args) > 1 else 0
    assert isinstance(axis, int)
    if 1 not in Lineage(graph, number, axis).axes_of(graph.nodes[value]):
        return None
    sizes = [fake_value(node).shape[axis] for node in parts]
    if parts[-1].name == insertion.original:
        return 0, sizes[0]
    return (None if parts[0].name == insertion.original else sizes[0]), sizes[1]


def _padded(
    edit: Editor, marks: fx.Node, place: tuple[int | None, int], fill: int, part: str
) -> fx.Node:
    offset, length = place
    end = edit.code.output_node()

    def pad(node: fx.Node, sides: list[int]) -> fx.Node:
        return edit.call(_aten.constant_pad_nd.default, (node, sides, fill), end, part)

    if not offset:
        return pad(marks, [0, length] if offset is None else [length, 0])
    before = edit.call(_aten.slice.Tensor, (marks, 1, 0, offset), end, part)
    after = edit.call(_aten.slice.Tensor, (marks, 1, offset), end, part)
    return edit.call(_aten.cat.default, ([pad(before, [0, length]), after], 1), end, part)
