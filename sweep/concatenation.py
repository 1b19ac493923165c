"""Insertion of entries: where a family has tokens, or pixels, or nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import graphprog as gp
from sweep.outcome import WrongError
from sweep.subject import Subject, compared, gradients, hooked, require, tensors
from tests.oracle import changed

LENGTH = 5

Reference = Callable[[torch.Tensor], list[torch.Tensor]]
"""What the model returns when entries [P, ...] are inserted into its values."""


def early(subject: Subject) -> str:
    """At the tokens; else where the first block begins; else at the input."""
    graph = subject.graph
    tokens, embedding = subject.towers("tokens"), subject.towers("embedding")
    if tokens:
        return _inserted(subject, tokens[0], 1, 0, _by_embeddings(subject))
    if embedding and len(graph.interfaces().resolve(embedding[0]).shape) == 3:
        return _inserted(subject, embedding[0], 1, 1, _by_hooks(subject, embedding[0], 1, 1))
    keys = [key for key in graph.interfaces() if key.startswith("input:")]
    shape = graph.interfaces()[keys[0]].shape
    nodes = "edge_index" in graph.call_spec.inputs
    require(nodes or len(shape) > 3, "nothing that is a sequence of tokens")
    axis, offset = (0, -1) if nodes else (len(shape) - 1, 0)
    return _inserted(subject, keys[0], axis, offset, _by_input(subject, keys[0], axis, offset))


def middle(subject: Subject) -> str:
    """After the middle block."""
    blocks = subject.blocks()
    require(blocks, "no repeated blocks")
    at = blocks[(len(blocks) - 1) // 2]
    rank = len(subject.graph.interfaces().resolve(at).shape)
    nodes = "edge_index" in subject.graph.call_spec.inputs
    require(nodes or rank > 2, "the blocks carry no sequence")
    axis, offset = (0, -1) if nodes else (1, 1) if rank == 3 else (rank - 1, 0)
    return _inserted(subject, at, axis, offset, _by_hooks(subject, at, axis, offset))


def _inserted(subject: Subject, at: str, axis: int, offset: int, reference: Reference) -> str:
    """No entries give the source; some give what the reference gives, and gradients."""
    require(hasattr(gp, "Concatenative"), "not written yet")
    arguments = subject.arguments()
    value = gp.Learnable("normal", 0.1)
    place = {"at": at, "axis": axis, "offset": offset, "value": value}
    task = subject.compile(gp.Concatenative(length=0, **place))
    with torch.no_grad():
        found, expected = tensors(task(**arguments)), tensors(subject.graph(**arguments))
    if not all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)):
        raise WrongError("no entries differ from the source")
    task = subject.compile(gp.Concatenative(length=LENGTH, **place))
    found = gradients(task, arguments)
    entries = next(iter(task.program.parameters())).detach()
    try:
        expected = reference(entries)
    except Exception as error:  # the model's own, which was not made for this
        return f"no reference: {type(error).__name__}"
    return compared(expected, found, "against the model")


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

    def reference(entries: torch.Tensor) -> list[torch.Tensor]:
        arguments = subject.arguments()
        arguments[name] = concatenated(arguments[name], entries, axis, offset)
        return subject.source(**arguments)

    return reference


def _by_embeddings(subject: Subject) -> Reference:
    case = subject.case

    def reference(entries: torch.Tensor) -> list[torch.Tensor]:
        if case.embed is None:
            raise LookupError("the model does not take embeddings")
        arguments = subject.arguments()
        with torch.no_grad():
            values = case.embed(arguments.pop(case.ids))
        arguments["inputs_embeds"] = concatenated(values, entries, 1, 0)
        if "attention_mask" in arguments:
            mask = arguments["attention_mask"]
            ones = torch.ones(len(mask), LENGTH, dtype=mask.dtype)
            arguments["attention_mask"] = torch.cat([ones, mask], 1)
        return subject.source(**arguments)

    return reference


def _by_hooks(subject: Subject, at: str, axis: int, offset: int) -> Reference:
    def reference(entries: torch.Tensor) -> list[torch.Tensor]:
        change = {hooked(subject, at): lambda value: concatenated(value, entries, axis, offset)}
        with torch.no_grad():
            return tensors(changed(subject.case.model, change, (), subject.arguments()))

    return reference
