"""Save a task as a checkpoint folder of PEFT."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from graphprog.compiler.lower_text import realized
from graphprog.compiler.merge_reparameterization import merge_reparameterization
from graphprog.compiler.model import ReprogrammedModel
from graphprog.errors import ProgramError
from graphprog.ir.graph import Insertion
from graphprog.manipulations.base import Manipulation
from graphprog.manipulations.modules.scale import Scale
from graphprog.manipulations.modules.trainable_layer import TrainableLayer
from graphprog.manipulations.prompts.concatenative import Concatenative
from graphprog.manipulations.prompts.prefix import Prefix
from graphprog.manipulations.selective import SelectiveManipulation
from graphprog.peft import folder
from graphprog.peft.places import same_place, tokens_of
from graphprog.peft.prefix import prefix_fields
from graphprog.spec.checks import require_choice
from graphprog.values.reparameterized import LSTM, MLP, LowRank

TASKS = ("CAUSAL_LM", "SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION")
_HEADS: dict[str, tuple[str, ...]] = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}
"""Modules that PEFT always trains for a task type, and expects in every folder of it."""


def save(
    task: ReprogrammedModel,
    path: str | os.PathLike[str],
    *,
    base_model_name_or_path: str,
    task_type: str,
    kind: str | None = None,
) -> None:
    """Save a program as a checkpoint folder that ``PeftModel.from_pretrained`` reads.

    Args:
        task: a prompt before the tokens, a prefix, or scalings of modules, optionally with
            :class:`~graphprog.TrainableLayer` parts. Reparameterized entries are saved as plain
            entries.
        path: the folder.
        base_model_name_or_path: name of the base model in PEFT's configuration.
        task_type: ``CAUSAL_LM``, ``SEQ_CLS``, ``TOKEN_CLS``, ``QUESTION_ANS``, ``SEQ_2_SEQ_LM``
            or ``FEATURE_EXTRACTION``.
        kind: ``PROMPT_TUNING`` (the default) or ``P_TUNING`` for a prompt, with the same results in
            PEFT, which can train only the first one further. Low-rank entries are
            ``MULTITASK_PROMPT_TUNING``, a prefix is ``PREFIX_TUNING``, scalings are ``IA3``.

    Raises:
        ProgramError: PEFT cannot represent a part of the program; says which and why.
        FileError: the folder cannot be written.

    Example:
        >>> prompted = gp.compile(language, gp.Program(gp.methods.prompt_tuning(tokens=4)))
        >>> gp.peft.save(prompted, "prompt", base_model_name_or_path="small", task_type="CAUSAL_LM")
        >>> again = gp.peft.load("prompt", language)
    """
    require_choice("", "task_type", task_type, TASKS)
    if not task.spec.align.is_identity:
        raise ProgramError(
            f"PEFT cannot represent the alignment {task.spec.align}",
            ['train the head of the source instead: gp.TrainableLayer(at="classifier:out")'],
        )
    parts = list(_parts(task))
    found = _kind(parts, kind)
    config: dict[str, Any] = {
        "peft_type": found,
        "task_type": task_type,
        "base_model_name_or_path": base_model_name_or_path,
        "inference_mode": True,
    }
    prefix = "base_model." if found in folder.OUTSIDE else "base_model.model."
    heads = _HEADS.get(task_type, ())
    layers = _layers(task, parts, heads)
    tensors = {f"{prefix}{name}": tensor for name, tensor in layers.items()}
    others = {name.rpartition(".")[0] for name in layers if not _belongs(name, heads)}
    config["modules_to_save"] = [*heads, *sorted(others)] or None
    if found == folder.SCALING:
        own, fields = _scalings(parts)
        tensors |= {f"{prefix}{name}": tensor for name, tensor in own.items()}
    elif found == folder.PREFIX:
        tensors["prompt_embeddings"], fields = _prefix(task, parts)
    else:
        own, fields = _prompt(task, parts, found)
        tensors |= own
    folder.write(path, config | fields, tensors)


@dataclasses.dataclass(frozen=True)
class _Part:
    """One part of a task: its insertion, its spec, and its learned tensors."""

    insertion: Insertion
    spec: Manipulation
    state: Mapping[str, torch.Tensor]


def _parts(task: ReprogrammedModel) -> Iterator[_Part]:
    program, _ = realized(task.spec, task.base)
    specs = {part.label: part for part in program.acting}
    for insertion in task.graph.insertions:
        if insertion.label not in specs:
            raise ProgramError(f"PEFT cannot represent {insertion.name!r}, at {insertion.at}")
        module = getattr(task.program, insertion.name)
        yield _Part(insertion, specs[insertion.label], module.state_dict())


def _kind(parts: list[_Part], wanted: str | None) -> str:
    """PEFT's name of the method of a program."""
    for part in parts:
        if isinstance(part.spec, SelectiveManipulation) and not part.spec.changes_all:
            raise ProgramError(
                f"PEFT changes whole values, but {part.insertion.name!r} has positions or units",
                ["save it in our format: gp.save(task, path)"],
            )
    main = [part for part in parts if not isinstance(part.spec, TrainableLayer)]
    for part in main:
        if not isinstance(part.spec, Concatenative | Prefix | Scale):
            raise ProgramError(
                f"PEFT cannot represent {part.insertion.name!r}, which is {part.spec.kind}",
                [
                    "use a prompt, a prefix, or scalings of modules",
                    "save it in our format: gp.save(task, path)",
                ],
            )
        if isinstance(part.spec, Prefix) and part.spec.gates:
            name = part.insertion.name
            raise ProgramError(f"PEFT has no prefixes with gates, but {name!r} has them")
    prompts = [part for part in main if isinstance(part.spec, Concatenative | Prefix)]
    if len(prompts) > 1 or (prompts and len(main) > 1) or not main:
        raise ProgramError(
            f"a folder of PEFT has one prompt or prefix, or scalings, but this program has "
            f"{', '.join(part.insertion.name for part in main) or 'neither'}"
        )
    if not prompts:
        found = folder.SCALING
    else:
        spec = prompts[0].spec
        assert isinstance(spec, Concatenative | Prefix)
        found = folder.MULTITASK if isinstance(spec.value, LowRank) else folder.PROMPT
        found = folder.PREFIX if isinstance(spec, Prefix) else found
    if wanted in (None, found) or (wanted == folder.ENCODER and found == folder.PROMPT):
        return wanted or found
    raise ProgramError(f"kind {wanted!r}: this program is {found}")


def _prompt(
    task: ReprogrammedModel, parts: list[_Part], kind: str
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and configuration of a prompt."""
    part = next(part for part in parts if isinstance(part.spec, Concatenative))
    spec = part.spec
    assert isinstance(spec, Concatenative)
    base, name = task.base, part.insertion.name
    if (spec.axis, spec.offset) != (1, 0) or not same_place(base, spec.at, tokens_of(base)):
        raise ProgramError(
            f"PEFT puts a prompt before the tokens, but {name!r} is at {spec.at}, axis "
            f"{spec.axis}, offset {spec.offset}",
            [f"use gp.Concatenative(at={tokens_of(base)!r}, axis=1, offset=0)"],
        )
    if isinstance(spec.value, LowRank):
        state = {path.rpartition(".")[2]: tensor for path, tensor in part.state.items()}
        tensors = {
            "prompt_embeddings": state["start"],
            "prefix_task_cols": state["columns"][None],
            "prefix_task_rows": state["rows"][None],
        }
    else:
        tensors = {"prompt_embeddings": getattr(merge_reparameterization(task).program, name).value}
    length, width = tensors["prompt_embeddings"].shape
    fields: dict[str, Any] = {
        "num_virtual_tokens": length,
        "token_dim": width,
        "num_transformer_submodules": 1,
    }
    return tensors, fields | _method(spec, kind, width)


def _prefix(task: ReprogrammedModel, parts: list[_Part]) -> tuple[torch.Tensor, dict[str, Any]]:
    """Tensor and configuration of a prefix."""
    part = next(part for part in parts if isinstance(part.spec, Prefix))
    assert isinstance(part.spec, Prefix)
    name = part.insertion.name
    return prefix_fields(
        task.base, part.spec, getattr(merge_reparameterization(task).program, name).rows.value, name
    )


def _method(spec: Concatenative, kind: str, width: int) -> dict[str, Any]:
    """Configuration entries of one method only."""
    value = spec.value
    if kind == folder.MULTITASK:
        assert isinstance(value, LowRank)
        return {"prompt_tuning_init": "RANDOM", "num_tasks": 1, "num_ranks": value.rank}
    if kind == folder.ENCODER:
        hidden = value.hidden if isinstance(value, MLP | LSTM) else width
        return {
            "encoder_reparameterization_type": "LSTM" if isinstance(value, LSTM) else "MLP",
            "encoder_hidden_size": hidden,
            "encoder_num_layers": value.layers if isinstance(value, LSTM) else 2,
        }
    return {"prompt_tuning_init": "RANDOM"}


def _scalings(parts: list[_Part]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and configuration of scalings."""
    tensors: dict[str, torch.Tensor] = {}
    ends: dict[str, str] = {}
    for part in parts:
        if not isinstance(part.spec, Scale):
            continue
        path, _, end = part.insertion.at.rpartition(":")
        if end not in ("in", "out") or path in ends:
            raise ProgramError(
                f"PEFT scales the input or the output of a module, once, but "
                f"{part.insertion.name!r} is at {part.insertion.at}"
            )
        ends[path] = end
        vector = part.state["value"]
        tensors[f"{path}.ia3_l"] = vector[None] if end == "in" else vector[:, None]
    feeding = sorted(path for path, end in ends.items() if end == "in")
    return tensors, {"target_modules": sorted(ends), "feedforward_modules": feeding}


def _layers(
    task: ReprogrammedModel, parts: list[_Part], heads: tuple[str, ...]
) -> dict[str, torch.Tensor]:
    """Tensors of trained layers, and of heads that PEFT always expects."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in task.source.state_dict().items():
        if _belongs(name, heads):
            found[name] = tensor
    for part in parts:
        if isinstance(part.spec, TrainableLayer):
            path = part.insertion.at.rpartition(":")[0]
            found |= {
                f"{path}.{name.removeprefix('layer.')}": tensor
                for name, tensor in part.state.items()
            }
    return found


def _belongs(name: str, heads: tuple[str, ...]) -> bool:
    """Whether a tensor belongs to a head or a part of one."""
    return any(part.endswith(head) for part in name.split(".")[:-1] for head in heads)
