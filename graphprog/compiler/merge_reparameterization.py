"""Merging reparameterized entries into plain tensors, without compiling again."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import fx, nn

from graphprog.compiler.model import ReprogrammedModel
from graphprog.ir.fake import fake_tensor
from graphprog.ir.graph import Graph
from graphprog.ir.ops import ancestors
from graphprog.ir.weights import ProgramParts, Weights
from graphprog.manipulations.base import Manipulation
from graphprog.passes.base import Pass
from graphprog.passes.pipeline import Pipeline
from graphprog.rewriting.editor import Editor
from graphprog.rewriting.fake_tracing import fake_mode_of, trace
from graphprog.values.base import Learnable
from graphprog.values.entries import Entries
from graphprog.values.reparameterized import Placed, Reparameterized


def merge_reparameterization(task: ReprogrammedModel, resume: bool = False) -> ReprogrammedModel:
    """Return the task for deployment: computed entries become plain tensors.

    Its outputs in inference are bit for bit those of the task. Initial values that hold tensors
    are dropped too. A task with nothing to merge is returned unchanged. The given task does not
    change; parts with nothing to merge are shared.

    Args:
        task: the task to merge.
        resume: keep the modules that compute entries.
    """
    parts = {id(part): _merged(part, resume) for part in task.spec.acting}
    if all(parts[id(part)] is part for part in task.spec.acting):
        return task
    manipulations = tuple(parts.get(id(part), part) for part in task.spec.manipulations)
    result = ReprogrammedModel(
        task.base,
        task.graph if resume else _with_plain_entries(task.graph),
        dataclasses.replace(task.spec, manipulations=manipulations),
        Pipeline(tuple(_with_op(item, parts) for item in task.pipeline.passes)),
        task.seed,
        task.prompt,
    )
    result.summary = dict(task.summary)
    result.train(task.training)
    return result


def _merged(part: Manipulation, resume: bool) -> Manipulation:
    value: Any = getattr(part, "value", None)
    plain = value
    if isinstance(value, Learnable):
        plain = value.folded()
    elif isinstance(value, Reparameterized):
        plain = value.folded() if resume else Learnable()
    changes: dict[str, Any] = {"value": plain}
    return part if plain is value else dataclasses.replace(part, **changes)


def _with_op(item: Pass, parts: dict[int, Manipulation]) -> Pass:
    op = getattr(item, "op", None)
    changes: dict[str, Any] = {"op": parts.get(id(op), op)}
    return item if changes["op"] is op else dataclasses.replace(item, **changes)


def _with_plain_entries(graph: Graph) -> Graph:
    """Replace every computation of entries in the graph by a tensor."""
    edit = Editor(graph, "merge-reparameterization")
    program = ProgramParts()
    for name, part in graph.weights.program.named_children():
        computed = [path for path, module in part.named_modules() if _is_computed(module)]
        program.add_module(name, copy.deepcopy(part) if computed else part)
        for path in computed:
            full = ".".join(filter(None, (name, path)))
            _store(edit, full, program.get_submodule(full))
    edit.changes["weights"] = Weights(graph.weights.source, program)
    return edit.finish()


def _is_computed(module: nn.Module) -> bool:
    return isinstance(module, Entries) and isinstance(module.made, Placed)


def _store(edit: Editor, path: str, entries: nn.Module) -> None:
    """Replace the computation of entries by a tensor, in the module and the code."""
    assert isinstance(entries, Entries)
    assert isinstance(entries.made, Placed)
    prefix = f"program.{path}.made."
    roots = [n for n in edit.code.find_nodes(op="get_attr") if str(n.target).startswith(prefix)]
    result, computation = _computation(edit.code, roots, _length(entries.made, edit.graph))
    fake = fake_tensor(result)
    with torch.no_grad():
        entries.value = nn.Parameter(entries.made().detach().clone())
    entries.made = None
    assert (entries.value.shape, entries.value.dtype) == (fake.shape, fake.dtype)
    with edit.code.inserting_before(result):
        value = edit.code.create_node("get_attr", f"program.{path}.value")
    value.meta["val"] = fake_mode_of(fake).from_tensor(entries.value, static_shapes=True)
    if result in edit.parts.values():  # other parts of the program read this node
        result.target, result.args, result.kwargs = torch.ops.aten.alias.default, (value,), {}
    else:
        edit.substitute(result, value, fused=True)
    for node in reversed(edit.code.nodes):
        if node in computation and not node.users:
            edit.code.erase_node(node)
    assert not any(root in edit.code.nodes for root in roots), f"{prefix}* is read elsewhere"


def _length(made: Placed, graph: Graph) -> int:
    """Return the number of operations that compute entries from their tensors."""
    traced, tensors = trace(made, [fake_tensor(graph.placeholders[0])], "entries")
    roots = traced.graph.find_nodes(op="placeholder")[-len(tensors) :]
    return len(_depending(traced.graph, roots))


def _depending(code: fx.Graph, roots: list[fx.Node]) -> list[fx.Node]:
    """Return the operations that depend on some nodes, in the order of the code."""
    found = set(roots)
    needed = set(ancestors(code.output_node()))
    for node in code.nodes:
        if not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return [n for n in code.nodes if n in found and n in needed and n.op == "call_function"]


def _computation(code: fx.Graph, roots: list[fx.Node], length: int) -> tuple[fx.Node, set[fx.Node]]:
    """Return the node that holds the entries, and the nodes that compute it from ``roots``.

    Everything that depends on the roots does so through the entries, so in any order of the code
    the entries are computed by the first operations that do.
    """
    depending = _depending(code, roots)
    result = depending[length - 1]
    own = {*roots, *ancestors(result)} - {result}
    for node in code.nodes:  # results that nothing reads, such as the last state of an LSTM
        if node is not result and not own.isdisjoint(node.all_input_nodes):
            own.add(node)
    return result, own
