"""Insertion of entries: where a family has tokens, or pixels, or nodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

import graphprog as gp
from graphprog.utils.numerics import difference
from sweep.outcome import WrongError
from sweep.subject import (
    TOLERANCE,
    Subject,
    compared,
    gradients,
    hooked,
    require,
    results,
    tensors,
)
from tests.support.oracle import visiting

LENGTH = 5

Reference = Callable[[torch.Tensor, dict[str, Any]], list[torch.Tensor]]
"""What the model returns for a call when entries [P, ...] are inserted into its values."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where entries are inserted, and what the model makes of it."""

    at: str
    axis: int
    offset: int
    reference: Reference

    def part(self, length: int) -> gp.Concatenative:
        """The program."""
        value = gp.Learnable("normal", 0.1)
        return gp.Concatenative(
            at=self.at, length=length, axis=self.axis, offset=self.offset, value=value
        )


def early_place(subject: Subject) -> Place:
    """At the tokens; else where the first block begins; else at the input."""
    tokens = subject.towers("tokens")
    if tokens:
        return Place(tokens[0], 1, 0, _by_embeddings(subject))
    for alias in reversed(subject.towers("embedding")):
        if len(subject.graph.interfaces().resolve(alias).shape) == 3:
            return _inner_place(subject, alias)
    key = next(key for key in subject.graph.interfaces() if key.startswith("input:"))
    shape = subject.graph.interfaces()[key].shape
    require(_has_edges(subject) or len(shape) > 3, "nothing that is a sequence of tokens")
    axis, offset = (0, 2) if _has_edges(subject) else (len(shape) - 1, 0)
    return Place(key, axis, offset, _by_input(subject, key, axis, offset))


def _inner_place(subject: Subject, alias: str) -> Place:
    """On the axis of a hidden value that is not the channels', as far as sizes tell."""
    shape = subject.graph.interfaces().resolve(alias).shape
    moving = [axis for axis, size in enumerate(shape) if axis and isinstance(size, str)]
    axis = moving[0] if moving else 1
    if len(shape) > 3 and not moving:
        axis = len(shape) - 1 if shape[-2] == shape[-1] != shape[1] else 2
    offset = 1
    if _has_edges(subject):
        axis, offset = 0, 2
    return Place(alias, axis, offset, _by_hooks(subject, alias, axis, offset))


def _has_edges(subject: Subject) -> bool:
    return "edge_index" in subject.graph.call_spec.inputs


def _joined_as_before(edges: torch.Tensor, nodes: int, offset: int) -> torch.Tensor:
    """Edges of a graph with nodes inserted, which join the nodes that they joined."""
    order = [*range(offset), *[None] * LENGTH, *range(offset, nodes)]
    return torch.tensor([[order.index(node) for node in side] for side in edges.tolist()])


def none(subject: Subject) -> str:
    """No entries at the early place are the source, bit for bit."""
    task = subject.compile(early_place(subject).part(0))
    arguments = subject.arguments()
    found, expected = results(task, arguments), results(subject.graph, arguments)
    if not all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)):
        raise WrongError("no entries differ from the source")
    return ""


def early(subject: Subject) -> str:
    """Some entries at the early place."""
    return _inserted(subject, early_place(subject))


def middle(subject: Subject) -> str:
    """Some entries after the middle block."""
    blocks = subject.blocks()
    require(blocks, "no repeated blocks")
    at = blocks[(len(blocks) - 1) // 2]
    rank = len(subject.graph.interfaces().resolve(at).shape)
    require(_has_edges(subject) or rank > 2, "the blocks carry no sequence")
    return _inserted(subject, _inner_place(subject, at))


def _inserted(subject: Subject, place: Place) -> str:
    """Entries get gradients, and give what the reference gives.

    A model may be able to take a longer sequence only where nothing is padded.
    """
    task = subject.compile(place.part(LENGTH))
    arguments = subject.arguments()
    # a node without edges can be of no consequence to any other
    found = gradients(task, arguments, reaching=not _has_edges(subject))
    entries = next(iter(task.program.parameters())).detach()
    whole = {
        name: torch.ones_like(value) if name == "attention_mask" else value
        for name, value in arguments.items()
    }
    for call in (arguments, whole):
        try:
            expected = place.reference(entries, dict(call))
        except Exception as error:  # the model's own, which was not made for this
            remark = f"no reference: {type(error).__name__}"
            continue
        found = results(task, call)
        # what a model returns of its inputs is as long as it was
        kept = [at for at, node in enumerate(_returned(task)) if node.op != "placeholder"]
        return compared(
            [expected[at] for at in kept], [found[at] for at in kept], "against the model"
        )
    return remark


def _returned(task: gp.ReprogrammedModel) -> list[fx.Node]:
    """The nodes of the tensors that are returned."""
    return [
        node
        for node in task.graph.output_nodes
        if isinstance(node, fx.Node) and isinstance(node.meta["val"], torch.Tensor)
    ]


def concatenated(value: torch.Tensor, entries: torch.Tensor, axis: int, offset: int) -> Any:
    """Entries of any rank put into a value along an axis."""
    shape = list(value.shape)
    shape[axis] = LENGTH
    while entries.ndim < value.ndim:
        entries = entries[None]
    place = offset if offset >= 0 else value.shape[axis] + 1 + offset
    before, after = value.split([place, value.shape[axis] - place], axis)
    return torch.cat([before, entries.expand(shape), after], axis)


def _by_input(subject: Subject, key: str, axis: int, offset: int) -> Reference:
    name = key.removeprefix("input:")

    def reference(entries: torch.Tensor, arguments: dict[str, Any]) -> list[torch.Tensor]:
        if _has_edges(subject):
            nodes = len(arguments[name])
            arguments["edge_index"] = _joined_as_before(arguments["edge_index"], nodes, offset)
        arguments[name] = concatenated(arguments[name], entries, axis, offset)
        return subject.source(**arguments)

    return reference


def _by_embeddings(subject: Subject) -> Reference:
    case = subject.case

    def reference(entries: torch.Tensor, arguments: dict[str, Any]) -> list[torch.Tensor]:
        if case.embed is None:
            raise LookupError("the model does not take embeddings")
        expected = subject.source(**arguments)
        with torch.no_grad():
            values = case.embed(arguments.pop(case.ids))
        bare = subject.source(**arguments, inputs_embeds=values.clone())  # some scale in place
        if any(not difference(a, b).within(TOLERANCE) for a, b in zip(expected, bare, strict=True)):
            raise LookupError("the model takes embeddings otherwise than tokens")
        arguments["inputs_embeds"] = concatenated(values, entries, 1, 0)
        if "attention_mask" in arguments:
            mask = arguments["attention_mask"]
            ones = torch.ones(len(mask), LENGTH, dtype=mask.dtype)
            arguments["attention_mask"] = torch.cat([ones, mask], 1)
        return subject.source(**arguments)

    return reference


def _by_hooks(subject: Subject, at: str, axis: int, offset: int) -> Reference:
    def reference(entries: torch.Tensor, arguments: dict[str, Any]) -> list[torch.Tensor]:
        place, edges = hooked(subject, at), arguments.get("edge_index")
        moved: list[torch.Tensor | None] = []

        def visit(key: str, value: torch.Tensor) -> torch.Tensor:
            if key == place:
                # what runs later gets edges among more nodes
                at_more = None if edges is None else _joined_as_before(edges, len(value), offset)
                moved.append(at_more)
                return concatenated(value, entries, axis, offset)
            later = moved[0] if moved else None
            return value if later is None or not torch.equal(value, edges) else later

        torch.manual_seed(0)
        with torch.no_grad(), visiting(subject.case.model, visit):
            result = tensors(subject.case.model(**arguments))
        if not moved:
            raise LookupError(f"the model has no {place}")
        return result

    return reference
