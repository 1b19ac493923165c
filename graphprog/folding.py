"""Folding: a program without the detour by which it was trained."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from graphprog.compile import compile
from graphprog.entries import Entries
from graphprog.manipulations import Manipulation
from graphprog.reparametrised import Reparametrised
from graphprog.reprogrammed import Reprogrammed
from graphprog.values import Learnable


def fold(task: Reprogrammed) -> Reprogrammed:
    """The task as it is deployed: entries that are computed become plain ones.

    Its outputs in inference are those of the task, bit for bit. Initial values that hold tensors
    are left out as well. A task with nothing to fold is returned as it is, and no task changes.
    """
    parts = {id(part): _folded(part) for part in task.spec.manipulations}
    if all(parts[id(part)] is part for part in task.spec.manipulations):
        return task
    manipulations = tuple(parts[id(part)] for part in task.spec.manipulations)
    spec = dataclasses.replace(task.spec, manipulations=manipulations)
    result = compile(task.base, spec, task.seed)
    computed = {part.label for part in task.spec.manipulations if _is_computed(part)}
    state = task.program_state()
    for insertion in task.graph.insertions:
        if insertion.label in computed:
            prefix = f"program.{insertion.name}."
            state = {name: value for name, value in state.items() if not name.startswith(prefix)}
            state[f"{prefix}value"] = _entries(getattr(task.program, insertion.name))
    result.load_program_state(state)
    result.summary = dict(task.summary)
    result.train(task.training)
    return result


def _entries(module: Entries) -> torch.Tensor:
    assert module.made is not None
    with torch.no_grad():
        entries: torch.Tensor = module.made()
    return entries.detach().cpu().clone()


def _is_computed(part: Manipulation) -> bool:
    return isinstance(getattr(part, "value", None), Reparametrised)


def _folded(part: Manipulation) -> Manipulation:
    value: Any = getattr(part, "value", None)
    if _is_computed(part):
        plain = Learnable()
    else:
        plain = value.folded() if isinstance(value, Learnable) else value
    changes: dict[str, Any] = {"value": plain}
    return part if plain is value else dataclasses.replace(part, **changes)
