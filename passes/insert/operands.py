"""Operands of a manipulation besides the value at its interface."""

from __future__ import annotations

import difflib
import re

import torch
from torch import fx

from graphprog.errors import InterfaceError, PassError, ProgramError
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.interface import Interface
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.fake_tracing import fake_mode_of


def at_place(reads: tuple[str, ...], at: str, place: Interface) -> tuple[str, ...]:
    """Replace the ``*`` in names of operands by the indices that match ``at`` at one place.

    The first ``*`` of a name matches the first of ``at``, the second the second. The index
    in a range such as ``hidden[2:5]`` counts as one.

    Raises:
        ProgramError: a name has more of them than ``at``.
    """
    at = re.sub(r"\[-?\d*:-?\d*\]", "[*]", at)  # a range is a subset of all
    tower = r"(?:.+\.)?"  # an alias may leave the tower out
    pattern = re.compile(tower + re.escape(at).replace(r"\*", r"([^:.\[\]]*)"))
    matches = filter(None, map(pattern.fullmatch, (place.key, *place.aliases)))
    stars = next((match.groups() for match in matches), ())
    found = []
    for name in reads:
        if name.count("*") > len(stars):
            raise ProgramError(
                f"{place.key}: {name!r} names several values where one is read",
                ["a * in what is read stands for the * of at=, so both need it"],
            )
        for star in stars[: name.count("*")]:
            name = name.replace("*", star, 1)
        found.append(name)
    return tuple(found)


def read(edit: Editor, graph: Graph, name: str, where: str) -> fx.Node:
    """Return the node of one operand.

    Args:
        edit: the graph being edited.
        graph: the graph it started from.
        name: an interface, ``source.<path>``, ``program.<part>`` or ``program.<part>.<path>``.
        where: interface key, for messages.

    Raises:
        InterfaceError: there is no such interface.
        ProgramError: there is no such tensor or part.
    """
    if name.startswith("source."):
        return _tensor(edit, graph, name, where)
    if name.startswith("program."):
        part, _, path = name.removeprefix("program.").partition(".")
        if not path and part in edit.parts:
            return edit.parts[part]
        if part not in dict(graph.weights.program.named_children()):
            known = ", ".join(edit.parts) or "none"
            raise ProgramError(
                f"{where} reads {name!r}, but the program has no part {part!r} yet; it has {known}",
                ["put the part that is read earlier in the program", "give that part a name="],
            )
        return _tensor(edit, graph, name, where)
    try:
        return edit.node(graph.interfaces().resolve(name).node)
    except InterfaceError as error:
        raise InterfaceError(f"{where} reads {name!r}: {error.what}", error.remedies) from error


def input_named(code: fx.Graph, name: str) -> fx.Node:
    """Return the input of the model with a name.

    Raises:
        PassError: there is no such input.
    """
    node: fx.Node
    for node in code.find_nodes(op="placeholder"):
        if node.target == name:
            return node
    raise PassError(f"the graph has no input {name!r} by now")


def _tensor(edit: Editor, graph: Graph, path: str, where: str) -> fx.Node:
    """Insert a read of a source or program tensor, before all operations."""
    tensors: dict[str, torch.Tensor] = {}
    tensors |= dict(graph.weights.named_parameters(remove_duplicate=False))
    tensors |= dict(graph.weights.named_buffers(remove_duplicate=False))
    if path not in tensors:
        near = difflib.get_close_matches(path, tensors, n=4, cutoff=0.3)
        raise ProgramError(
            f"{where} reads {path!r}, but there is no such tensor",
            [f"nearest names: {', '.join(near)}"] if near else [],
        )
    with edit.code.inserting_after(edit.code.find_nodes(op="placeholder")[-1]):
        node = edit.code.create_node("get_attr", path)
    inputs: torch.Tensor = fake_tensor(graph.placeholders[0])
    node.meta["val"] = fake_mode_of(inputs).from_tensor(tensors[path], static_shapes=True)
    return node
