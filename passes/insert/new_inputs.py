"""Inputs that a part of a program adds to the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from graphprog.errors import InterfaceError
from graphprog.ir.call_spec import CallSpec
from graphprog.ir.fake import fake_tensor
from graphprog.ir.sizes import Size, same_shape
from graphprog.rewriting.editor import Editor


def new_input(
    edit: Editor, name: str, like: torch.Tensor, shape: Sequence[Size], dtype: torch.dtype
) -> fx.Node:
    """Return an input of the model that parts of its program share by name; added if needed.

    Args:
        edit: the graph being edited.
        name: name of the input.
        like: a fake value of the graph.
        shape: shape of the input.
        dtype: its type.

    Raises:
        InterfaceError: the source has an input of that name, or it has another type.
    """
    node: fx.Node
    value = like.new_empty(tuple(shape), dtype=dtype)
    for node in edit.code.find_nodes(op="placeholder"):
        if node.target != name:
            continue
        known = fake_tensor(node)
        own = name in edit.graph.source.call_spec.inputs
        if own or known.dtype != dtype or not same_shape(known, value):
            what = "is one of the model" if own else f"is {known.dtype}{list(known.shape)} already"
            raise InterfaceError(
                f"a part of the program needs an input {name!r}, {dtype}{list(value.shape)}, but "
                f"that {what}",
                ["choose another name", "with several interfaces, put a * into it, as in at="],
            )
        return node
    edit.changes["call_spec"] = call_spec_of(edit).with_inputs([name])
    return edit.add_input(name, value)


def call_spec_of(edit: Editor) -> CallSpec:
    """Return the call spec of a graph that is being edited."""
    found: CallSpec = edit.changes.get("call_spec", edit.graph.call_spec)
    return found


def remove_inputs(edit: Editor, call_spec: CallSpec) -> None:
    """Remove the inputs that a call spec does not have; nothing alive reads them."""
    if call_spec == call_spec_of(edit):
        return
    for node in edit.code.find_nodes(op="placeholder"):
        if str(node.target) not in call_spec.inputs:
            edit.erase_input(node)
    edit.changes["call_spec"] = call_spec
