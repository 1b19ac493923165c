"""External modules: user modules in a program, which are not in its file but given again."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from graphprog.compiler.model import ReprogrammedModel
from graphprog.compiler.program import Program
from graphprog.errors import FileError
from graphprog.manipulations.base import Manipulation


def carried_fields(part: Manipulation) -> tuple[str, ...]:
    """Return the fields of a manipulation that hold a user's module; none if it has none."""
    fields = dataclasses.fields(part) if getattr(part, "of", True) else ()
    return tuple(field.name for field in fields if not field.metadata.get("saved", True))


def _carrying(program: Program) -> Iterator[tuple[str, Manipulation]]:
    """Yield the manipulations with a user's module, by label; a second one is ``label_1``."""
    seen: Counter[str] = Counter()
    for part in program.acting:
        if carried_fields(part):
            again = seen[part.label]
            yield f"{part.label}_{again}" if again else part.label, part
            seen[part.label] += 1


def describe(task: ReprogrammedModel) -> dict[str, Any]:
    """Describe the modules that are not in the file: hashes of operations and constants."""
    return {key: _hashes(task, part) for key, part in _carrying(task.spec)}


def _hashes(task: ReprogrammedModel, part: Manipulation) -> dict[str, str]:
    names = {item.name for item in task.graph.insertions if item.label == part.label}
    text = task.graph.bare_text.splitlines()
    own = [line for line in text if line.strip().removeprefix("%").split(".")[0] in names]
    digest = hashlib.sha256()
    for name in sorted(names):
        module = getattr(task.program, name)
        kept = module.state_dict()
        for path, tensor in module.named_buffers():
            if path not in kept:
                digest.update(f"{path} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                flat = tensor.detach().cpu().contiguous().reshape(-1)
                digest.update(flat.view(torch.uint8).numpy().data)
    operations = hashlib.sha256("\n".join(own).encode()).hexdigest()
    return {"operations": operations, "constants": digest.hexdigest()}


def supply(program: Program, modules: Mapping[str, nn.Module]) -> Program:
    """Put the given modules into a program that was read from a file.

    Raises:
        FileError: a module is missing, or an unknown one is given; the message says which.
    """
    wanted = dict(_carrying(program))
    missing = {key: getattr(part, "of", "") for key, part in wanted.items() if key not in modules}
    if missing:
        names = ", ".join(f"{key!r} ({name})" for key, name in missing.items())
        given = ", ".join(f'"{key}": {name}(...)' for key, name in missing.items())
        raise FileError(
            f"the program has modules that are not in its file: {names}",
            [f"use gp.load(path, graph, modules={{{given}}}), with the module as it was created"],
        )
    unknown = sorted(set(modules) - set(wanted))
    if unknown:
        raise FileError(
            f"modules= names {', '.join(unknown)}, but the program takes "
            f"{', '.join(wanted) or 'none'}",
            ["leave out the unknown names"],
        )
    parts = {id(part): _with(part, modules[key]) for key, part in wanted.items()}
    chosen = tuple(parts.get(id(part), part) for part in program.manipulations)
    return dataclasses.replace(program, manipulations=chosen)


def _with(part: Manipulation, module: nn.Module) -> Manipulation:
    (field,) = carried_fields(part)
    changes: dict[str, Any] = {field: module}
    return dataclasses.replace(part, **changes)


def check(document: Any, torch_version: Any, task: ReprogrammedModel) -> None:
    """Compare the modules described in a file with the given ones.

    Raises:
        FileError: a module has other operations or constants; the message says which.
    """
    known = document if isinstance(document, dict) else {}
    for key, own in describe(task).items():
        saved = known.get(key)
        if not isinstance(saved, dict):
            raise FileError(
                f"the file does not describe the module {key!r}", ["save the program again"]
            )
        differs = [name for name in own if saved.get(name) != own[name]]
        if not differs:
            continue
        part = dict(_carrying(task.spec))[key]
        message = (
            f"the module given as {key!r} ({getattr(part, 'of', '')}) has other "
            f"{' and '.join(differs)} than the saved one"
        )
        if differs == ["operations"] and torch_version != torch.__version__:
            warnings.warn(
                f"{message}; it was traced by torch {torch_version}, now by {torch.__version__}. "
                "Check its accuracy before you rely on it.",
                stacklevel=4,
            )
            continue
        raise FileError(
            message,
            [
                "create the module with the same class and arguments as in training",
                "set buffers that are not persistent as they were: they count as constants",
            ],
        )
