"""A compiled model that is steered by further inputs: vectors, and their strength."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import fx, nn

from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import InterfaceError, ProgramError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.inputs import batch_axis, inputs_of
from graphprog.ir.interface import Interface
from graphprog.ir.parts.cut import input_name
from graphprog.passes.attention.expose_attention import exposed
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.effects import require_effect
from graphprog.rewriting.fake_tracing import fake_mode_of

STRENGTH = "strength"
Steer = Sequence[str] | Mapping[str, torch.Tensor]
"""Interfaces whose vectors are inputs, or the vector [d] of each."""

_PART = "steering"


def with_steering(task: ReprogrammedModel, steer: Steer) -> ReprogrammedModel:
    """Return the same model and program, which adds ``strength * vector`` at interfaces.

    Its further inputs are ``vector_hidden_5`` [B, d] for ``hidden[5]``, one vector for each row,
    unless the vectors are given, and ``strength``, a float32 scalar. With strength 0 the results
    are those of the model.

    Args:
        task: the model; it shares its tensors with the result.
        steer: interfaces with float values [B, d] or [B, S, d].

    Raises:
        InterfaceError: a name is unknown or ambiguous, its values have another shape, or no output
            depends on them.
        ProgramError: a vector does not fit, or an input of such a name is there already.
    """
    names = [steer] if isinstance(steer, str) else [*steer]
    vectors = dict(steer) if isinstance(steer, Mapping) else {}
    graph = exposed(task.graph, names)
    places = {name: _place(graph, name) for name in names}
    require_effect(graph, places)
    if not places or len({place.key for place in places.values()}) < len(names):
        raise InterfaceError(f"steer must name interfaces, each once, not {names}")
    added = [f"vector_{input_name(name)}" for name in names if name not in vectors] + [STRENGTH]
    if taken := set(added).intersection(graph.call_spec.inputs):
        raise ProgramError(f"the model has an input {', '.join(sorted(taken))} of its own")
    edit = Editor(graph, _PART)
    mode = fake_mode_of(fake_tensor(graph.placeholders[0]))
    held = _Vectors({input_name(name): vector for name, vector in vectors.items()})
    if vectors:
        edit.add_module(_PART, held)
    sources: dict[str, fx.Node] = {}
    for name, place in places.items():
        value = fake_tensor(graph.nodes[place.node])
        if name not in vectors:
            given = value.new_empty((value.shape[0], value.shape[-1]), dtype=torch.float32)
            sources[name] = edit.add_input(f"vector_{input_name(name)}", given)
    with mode:
        scalar = torch.empty((), device=fake_tensor(graph.placeholders[0]).device)
    strength = edit.add_input(STRENGTH, scalar)
    for name, vector in vectors.items():
        _check_vector(name, places[name], vector)
        with edit.code.inserting_after(strength):
            node = edit.code.create_node("get_attr", f"program.{_PART}.{input_name(name)}")
        fake = mode.from_tensor(held.get_buffer(input_name(name)), static_shapes=True)
        node.meta = {"val": fake, **edit.provenance(_PART)}
        sources[name] = node
    for name, place in places.items():
        _add(edit, place, sources[name], strength)
    edit.changes["call_spec"] = graph.call_spec.with_inputs(added)
    changed = dataclasses.replace(edit.finish(), base=graph.base)
    found = ReprogrammedModel(task.base, changed, task.spec, task.pipeline, task.seed, task.prompt)
    found.summary = dict(task.summary)
    return found.train(task.training)


class _Vectors(nn.Module):
    """The vectors [d] that are constants of the model, by name."""

    def __init__(self, vectors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        for name, vector in vectors.items():
            value = torch.as_tensor(vector).detach().to(torch.float32)
            self.register_buffer(name, value, persistent=False)


def _place(graph: Graph, name: str) -> Interface:
    place = graph.interfaces().resolve(name)
    batch = batch_axis(inputs_of(graph))
    first, last = (place.shape[0], place.shape[-1]) if place.shape else (None, None)
    fits = len(place.shape) in (2, 3) and isinstance(last, int) and first == batch
    if not fits or not place.dtype.is_floating_point:
        raise InterfaceError(
            f"the value at {name!r} is {place.type_text}; floats [B, d] or [B, S, d] are needed",
            ["steer at another interface", "gp.Additive takes patterns of any shape"],
        )
    return place


def _check_vector(name: str, place: Interface, vector: torch.Tensor) -> None:
    expected = (place.shape[-1],)
    if tuple(vector.shape) != expected or not bool(vector.isfinite().all()):
        raise ProgramError(
            f"the vector at {name!r} has shape {list(vector.shape)}; finite {list(expected)} is "
            "needed"
        )


def _add(edit: Editor, place: Interface, vector: fx.Node, strength: fx.Node) -> None:
    """Add ``strength * vector`` at every position of a value, in its dtype."""
    ops = torch.ops.aten
    value = edit.node(place.node)
    edges = set(edit.sites[place.key].edges)
    before = value.next
    while before.op in ("placeholder", "get_attr"):
        before = before.next
    moved = edit.call(ops.mul.Tensor, (vector, strength), before, _PART)
    for _ in range(len(place.shape) - 2):
        moved = edit.call(ops.unsqueeze.default, (moved, -2), before, _PART)
    if place.dtype != torch.float32:
        moved = edit.call(ops.to.dtype, (moved, place.dtype), before, _PART)
    new = edit.call(ops.add.Tensor, (value, moved), before, _PART)
    edit.redirect(value, edges, new, {(new, 0)}, place.key)
