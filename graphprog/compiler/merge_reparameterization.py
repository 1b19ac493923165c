"""Folding: a program without the detour by which it was trained."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from graphprog.compiler.compile import compile
from graphprog.compiler.model import ReprogrammedModel
from graphprog.manipulations import Manipulation
from graphprog.values.base import Learnable
from graphprog.values.entries import Entries
from graphprog.values.reparameterized import Placed, Reparameterized


def merge_reparameterization(task: ReprogrammedModel, resume: bool = False) -> ReprogrammedModel:
    """The task as it is deployed: entries that are computed become plain ones.

    Its outputs in inference are those of the task, bit for bit. Initial values that hold tensors
    are left out as well. A task with nothing to fold is returned as it is, and no task changes.

    Args:
        task: what to fold.
        resume: keep what entries are computed from.
    """
    parts = {id(part): _folded(part, resume) for part in task.spec.acting}
    if all(parts[id(part)] is part for part in task.spec.acting):
        return task
    manipulations = tuple(parts.get(id(part), part) for part in task.spec.manipulations)
    spec = dataclasses.replace(task.spec, manipulations=manipulations)
    result = compile(task.base, spec, task.seed)
    state = task.program_state()
    for path, module in task.program.named_modules(prefix="program"):
        if not resume and isinstance(module, Entries) and isinstance(module.made, Placed):
            _fold_state(state, path, module.made)
    result.load_program_state(state)
    result.summary = dict(task.summary)
    result.train(task.training)
    return result


def _fold_state(state: dict[str, torch.Tensor], path: str, made: Placed) -> None:
    """Put entries into a state in the place of what they are computed from."""
    for name in [name for name in state if name.startswith(f"{path}.made.")]:
        del state[name]
    with torch.no_grad():
        state[f"{path}.value"] = made().detach().cpu().clone()


def _folded(part: Manipulation, resume: bool) -> Manipulation:
    value: Any = getattr(part, "value", None)
    plain = value
    if isinstance(value, Learnable):
        plain = value.folded()
    elif isinstance(value, Reparameterized):
        plain = value.folded() if resume else Learnable()
    changes: dict[str, Any] = {"value": plain}
    return part if plain is value else dataclasses.replace(part, **changes)
